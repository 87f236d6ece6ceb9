"""The engine says what the torch engine says, alone or in company, and outlives what is wrong with requests."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.inputs import tokens_input

from cosyvoice_core.errors import InputError
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.request import TokenRequest
from deployments.messages import Finish
from deployments.speech_lm.vllm_engine import VllmTokenEngine
from tests.vllm.speaking import heard, requests

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.golden
async def test_greedy_runs_of_the_original(engine: VllmTokenEngine, golden_lm: Path) -> None:
    for name, case in json.loads((golden_lm / "lm_uni.json").read_text()).items():
        least, most = case["min_len"], case["max_len"]
        request = TokenRequest(tuple(case["merged_prompt_ids"]), max_tokens=most, min_tokens=least, greedy=True)
        tokens, finish = await heard(engine, request)
        assert tokens == case["greedy_yielded_recommended"], name
        assert finish is (Finish.LENGTH if case["hit_max_recommended"] else Finish.END_OF_SPEECH), name


@pytest.mark.parametrize("greedy", [True, False])
async def test_is_the_torch_engine_alone_and_among_eight(
    engine: VllmTokenEngine, oracle: TorchEngine, greedy: bool
) -> None:
    """Sampled as well: both engines draw by the same function of seed and position."""
    asked = requests(engine, 8, greedy=greedy)
    expected = [list(oracle.generate(request)) for request in asked]
    assert [(await heard(engine, request))[0] for request in asked] == expected
    together = await asyncio.gather(*(heard(engine, request) for request in asked))
    assert [tokens for tokens, _ in together] == expected


async def test_a_seed_is_held_and_another_speaks_otherwise(engine: VllmTokenEngine) -> None:
    (request,) = requests(engine, 1)
    first = await heard(engine, request)
    assert await heard(engine, request) == first
    assert await heard(engine, replace(request, seed=request.seed + 1)) != first


async def test_goes_on_from_any_token_of_its_log(engine: VllmTokenEngine) -> None:
    for request in requests(engine, 3):
        tokens, finish = await heard(engine, request)
        for known in (1, 7, len(tokens) - 1, len(tokens)):
            rest = await heard(engine, replace(request, history=tuple(tokens[:known])))
            assert rest == (tokens[known:], finish)


async def test_length_is_told(engine: VllmTokenEngine) -> None:
    (request,) = requests(engine, 1, max_tokens=20, min_tokens=20)
    tokens, finish = await heard(engine, request)
    assert (len(tokens), finish) == (20, Finish.LENGTH)
    assert await heard(engine, replace(request, history=tuple(tokens))) == ([], Finish.LENGTH)


async def test_an_utterance_that_fills_the_context_ends_there(engine: VllmTokenEngine) -> None:
    vocabulary = engine.vocabulary
    prompt = (vocabulary.sos, *vocabulary.text([1] * 1013), vocabulary.task)
    tokens, finish = await heard(engine, TokenRequest(prompt, max_tokens=500, min_tokens=5, greedy=True))
    assert finish in (Finish.LENGTH, Finish.END_OF_SPEECH)
    assert 5 <= len(tokens) <= 1024 - len(prompt)


async def test_what_cannot_be_decoded_never_reaches_vllm(engine: VllmTokenEngine) -> None:
    """Each of these would end the engine for everybody, were it passed on."""
    vocabulary = engine.vocabulary
    prompt = (vocabulary.sos, *vocabulary.text([1, 2, 3]), vocabulary.task)
    wrong = [
        TokenRequest((*prompt, vocabulary.input_rows), max_tokens=9),
        TokenRequest((*prompt, -1), max_tokens=9),
        TokenRequest((*prompt, 2**40), max_tokens=9),
        TokenRequest(prompt, max_tokens=9, history=(vocabulary.speech_tokens,)),
        TokenRequest(prompt, max_tokens=2000, min_tokens=1024),
        TokenRequest(prompt * 300, max_tokens=9),
    ]
    for request in wrong:
        with pytest.raises(InputError):
            await heard(engine, request)
    (right,) = requests(engine, 1)
    assert (await heard(engine, right))[0]
    assert engine.unfinished == 0


@pytest.mark.parametrize(
    "fatal",
    [{"repetition_penalty": 1.2}, {"presence_penalty": 0.5}, {"frequency_penalty": 0.5}, {"prompt_logprobs": 1}],
)
async def test_penalties_are_refused_by_the_second_line_too(engine: VllmTokenEngine, fatal: dict[str, float]) -> None:
    """We never set them; should it happen, that request fails and no other."""
    prompt = [engine.vocabulary.sos, *engine.vocabulary.text([1, 2]), engine.vocabulary.task]
    params = SamplingParams(max_tokens=5, detokenize=False, **fatal)
    with pytest.raises(VLLMValidationError):
        async for _ in engine._llm.generate(tokens_input(prompt), params, f"penalty-{fatal}"):
            pass
    await engine.check_health()
    (right,) = requests(engine, 1)
    assert (await heard(engine, right))[0]


async def test_leaves_the_lists_of_a_request_alone(engine: VllmTokenEngine) -> None:
    (request,) = requests(engine, 1)
    prompt = request.prompt_ids
    await asyncio.gather(heard(engine, request), heard(engine, request))
    assert request.prompt_ids == prompt
