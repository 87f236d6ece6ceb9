"""Continuous batching: company, replay, cancellation, failures, limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.errors import CheckpointError, EngineError, InputError
from cosyvoice_core.lm.body import Span, SpeechBody
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.merge import merge
from cosyvoice_core.lm.request import TokenEvent, TokenRequest

SAMPLINGS = (SamplingConfig(), SamplingConfig(tau=1.0), SamplingConfig(top_p=1.0, top_k=6564, window=0))
PROPERTY = settings(max_examples=10, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def request(engine: TorchEngine, seed: int, text: int = 6, tokens: int = 24, **changes: object) -> TokenRequest:
    """A prompt of `text` text tokens that depends on the seed, and an answer of at most `tokens` tokens."""
    vocabulary = engine.vocabulary
    ids = [(31 * seed + 7 * position) % vocabulary.text_rows for position in range(text)]
    prompt = (vocabulary.sos, *vocabulary.text(ids), vocabulary.task)
    made = TokenRequest(
        prompt, max_tokens=tokens, min_tokens=tokens // 2, seed=seed, sampling=SAMPLINGS[seed % len(SAMPLINGS)]
    )
    return replace(made, **changes)


def drain(engine: TorchEngine, numbers: Iterable[int]) -> dict[int, tuple[list[int], TokenEvent]]:
    """Tokens and last event of each sequence."""
    tokens: dict[int, list[int]] = {number: [] for number in numbers}
    last = {}
    while engine.pending:
        for event in engine.step():
            tokens[event.sequence] += event.tokens
            if event.finished:
                last[event.sequence] = event
    return {number: (tokens[number], last[number]) for number in tokens}


def alone(engine: TorchEngine, wanted: TokenRequest) -> list[int]:
    return list(engine.generate(wanted))


REQUESTS = st.lists(
    st.tuples(st.integers(0, 2**40), st.integers(1, 30), st.integers(2, 20)), min_size=8, max_size=8, unique=True
)


@PROPERTY
@given(shapes=REQUESTS, joins=st.lists(st.integers(0, 6), min_size=8, max_size=8))
def test_company_does_not_matter(engine: TorchEngine, shapes: list[tuple[int, int, int]], joins: list[int]) -> None:
    """Eight requests that join at different steps get the tokens they get alone."""
    wanted = [request(engine, *shape, greedy=index == 0) for index, shape in enumerate(shapes)]
    numbers: dict[int, int] = {}
    tokens: list[list[int]] = [[] for _ in wanted]
    step = 0
    while engine.pending or len(numbers) < len(wanted):
        for index, join in enumerate(joins):
            if join == step:
                numbers[engine.add(wanted[index])] = index
        for event in engine.step():
            tokens[numbers[event.sequence]] += event.tokens
        step += 1
    assert tokens == [alone(engine, each) for each in wanted]


@PROPERTY
@given(seed=st.integers(0, 2**64 - 1), text=st.integers(1, 30), cut=st.floats(0, 1))
def test_replay_from_any_prefix_goes_on_the_same(engine: TorchEngine, seed: int, text: int, cut: float) -> None:
    wanted = request(engine, seed, text, 40)
    whole = alone(engine, wanted)
    known = tuple(whole[: int(cut * len(whole))])
    assert list(known) + alone(engine, replace(wanted, history=known)) == whole


def test_replay_in_company_of_new_prompts(engine: TorchEngine) -> None:
    wanted = [request(engine, seed, tokens=40) for seed in range(8)]
    whole = [alone(engine, each) for each in wanted]
    numbers = [
        engine.add(replace(each, history=tuple(tokens[: 5 * index])))
        for index, (each, tokens) in enumerate(zip(wanted, whole, strict=True))
    ]
    results = drain(engine, numbers)
    for index, number in enumerate(numbers):
        assert results[number][0] == whole[index][5 * index :]


def test_seeds_and_settings_matter(engine: TorchEngine) -> None:
    first = request(engine, 1)
    assert alone(engine, first) != alone(engine, replace(first, seed=2))
    assert alone(engine, first) != alone(engine, replace(first, greedy=True))
    assert alone(engine, first) != alone(engine, replace(first, sampling=SamplingConfig(top_k=1, window=0)))
    greedy = replace(first, greedy=True)
    assert alone(engine, greedy) == alone(engine, replace(greedy, seed=2))


def test_lengths_and_reasons(golden_lm: Path, engine: TorchEngine) -> None:
    """With weights that want to end at once, the minimum decides; where both bounds meet, the maximum does."""
    merged = merge(read_state(golden_lm / "ckpt" / "llm.pt"), engine.config, engine.vocabulary)
    merged["lm_head.bias"][list(engine.vocabulary.stop_ids)] = 1000.0
    hasty = TorchEngine(SpeechBody(merged, engine.config), engine.vocabulary, engine.config)
    wanted = [request(hasty, 3, tokens=10, min_tokens=least) for least in (0, 4, 10)]
    results = drain(hasty, [hasty.add(each) for each in wanted])
    assert [(len(tokens), last.reason) for tokens, last in results.values()] == [
        (0, "stop"),
        (4, "stop"),
        (10, "length"),
    ]
    said = {id_ for tokens, _ in results.values() for id_ in tokens}
    assert max(said) < hasty.vocabulary.speech_tokens


def test_a_history_that_is_complete_is_finished_at_once(engine: TorchEngine) -> None:
    done = request(engine, 3, tokens=4, history=(1, 2, 3, 4))
    number = engine.add(done)
    assert engine.step() == [TokenEvent(number, (), True, "length")]
    assert engine.step() == []


def test_each_step_brings_one_token_per_sequence(engine: TorchEngine) -> None:
    numbers = [engine.add(request(engine, seed)) for seed in range(3)]
    for _ in range(5):
        events = engine.step()
        assert [event.sequence for event in events] == numbers
        assert all(len(event.tokens) == 1 and not event.finished for event in events)
    for number in numbers:
        engine.cancel(number)
    assert (engine.pending, engine.ready, engine.step()) == (0, False, [])


def test_cancelling_one_leaves_the_others(engine: TorchEngine) -> None:
    wanted = [request(engine, seed) for seed in range(3)]
    expected = [alone(engine, each) for each in wanted]
    numbers = [engine.add(each) for each in wanted]
    kept = {number: list(event.tokens) for number, event in zip(numbers, engine.step(), strict=True)}
    engine.cancel(numbers[1])
    engine.cancel(numbers[1])
    for number, (tokens, _) in drain(engine, [numbers[0], numbers[2]]).items():
        assert kept[number] + tokens == expected[numbers.index(number)]


def test_scores_that_are_not_numbers_end_their_sequence_only(golden_lm: Path, engine: TorchEngine) -> None:
    config = engine.config
    merged = merge(read_state(golden_lm / "ckpt" / "llm.pt"), config, engine.vocabulary)
    poisoned = engine.vocabulary.text([0])[0]
    merged["model.embed_tokens.weight"][poisoned] = torch.nan
    sick = TorchEngine(SpeechBody(merged, config), engine.vocabulary, config)
    wanted = [request(engine, seed) for seed in (1, 2, 3)]
    expected = [alone(sick, each) for each in wanted]
    bad = replace(wanted[1], prompt_ids=(*wanted[1].prompt_ids, poisoned))
    numbers = [sick.add(each) for each in (wanted[0], bad, wanted[2])]
    results = drain(sick, numbers)
    assert (results[numbers[0]][0], results[numbers[2]][0]) == (expected[0], expected[2])
    tokens, last = results[numbers[1]]
    assert (tokens, last.finished, last.reason) == ([], True, None)
    assert isinstance(last.error, EngineError)
    with pytest.raises(EngineError, match="not numbers"):
        alone(sick, bad)
    assert sick.pending == 0


def test_a_prompt_that_leaves_no_room_is_refused(small_context: TorchEngine) -> None:
    with pytest.raises(InputError, match="at most 64"):
        small_context.add(request(small_context, 1, text=63, tokens=1, min_tokens=0))
    with pytest.raises(InputError, match="at most 64"):
        small_context.add(request(small_context, 1, text=40, tokens=30, min_tokens=25))
    assert small_context.pending == 0


def test_a_full_context_ends_the_utterance(small_context: TorchEngine) -> None:
    """62 positions of prompt, two more can be fed: three predictions."""
    number = small_context.add(request(small_context, 1, text=60, tokens=500, min_tokens=2, greedy=True))
    tokens, last = drain(small_context, [number])[number]
    assert last.error is None
    assert (len(tokens), last.reason) == (3, "length")


def test_prompts_share_the_prefill_budget(small_context: TorchEngine) -> None:
    """Running utterances get a token in every step; of two prompts above the budget one waits."""
    running = small_context.add(request(small_context, 1))
    small_context.step()
    late = [small_context.add(request(small_context, seed, text=10)) for seed in (2, 3)]
    assert [event.sequence for event in small_context.step()] == [running, late[0]]
    assert [event.sequence for event in small_context.step()] == [running, *late]
    for number in (running, *late):
        small_context.cancel(number)


def test_a_prompt_of_many_chunks_is_as_if_alone(engine: TorchEngine) -> None:
    """700 rows: three chunks, spread over steps by a small budget, next to a running utterance."""
    long = request(engine, 5, text=700, tokens=6)
    narrow = TorchEngine(engine.body, engine.vocabulary, engine.config, prefill_tokens=1)
    numbers = [narrow.add(request(engine, 1)), narrow.add(long)]
    steps_before = 0
    while not any(event.sequence == numbers[1] for event in narrow.step()):
        steps_before += 1
    assert steps_before >= 2
    narrow.cancel(numbers[0])
    narrow.cancel(numbers[1])
    assert alone(narrow, long) == alone(engine, long)


def test_unknown_ids_are_refused_before_they_can_harm_a_batch(engine: TorchEngine) -> None:
    for changes in (
        {"prompt_ids": (engine.vocabulary.input_rows,)},
        {"prompt_ids": (-1,)},
        {"history": (engine.vocabulary.eos,)},
    ):
        with pytest.raises(InputError):
            engine.add(request(engine, 1, **changes))
    assert engine.pending == 0


def test_generate_needs_an_idle_engine_and_cleans_up(engine: TorchEngine) -> None:
    number = engine.add(request(engine, 1))
    with pytest.raises(EngineError, match="other sequences"):
        next(engine.generate(request(engine, 2)))
    engine.cancel(number)
    tokens = engine.generate(request(engine, 2))
    next(tokens)
    tokens.close()
    assert engine.pending == 0


class FlakyBody(SpeechBody):
    """Runs out of memory in its third and fourth forward, before and after the decoder."""

    calls = 0

    def forward(self, ids: Sequence[int], spans: Sequence[Span]) -> Tensor:
        self.calls += 1
        if self.calls == 3:
            raise MemoryError
        return super().forward(ids, spans)

    def logits(self, hidden: Tensor) -> Tensor:
        if self.calls == 4:
            raise MemoryError
        return super().logits(hidden)


def test_a_step_that_raised_can_be_repeated(golden_lm: Path, engine: TorchEngine) -> None:
    merged = merge(read_state(golden_lm / "ckpt" / "llm.pt"), engine.config, engine.vocabulary)
    flaky = TorchEngine(FlakyBody(merged, engine.config), engine.vocabulary, engine.config)
    wanted = [request(engine, seed) for seed in (1, 2)]
    numbers = [flaky.add(each) for each in wanted]
    tokens: dict[int, list[int]] = {number: [] for number in numbers}
    failures = 0
    while flaky.pending:
        try:
            events = flaky.step()
        except MemoryError:
            failures += 1
            continue
        for event in events:
            tokens[event.sequence] += event.tokens
    assert failures == 2
    assert list(tokens.values()) == [alone(engine, each) for each in wanted]


def test_a_missing_or_foreign_file_is_a_checkpoint_error(tmp_path: Path, engine: TorchEngine) -> None:
    config = engine.config
    with pytest.raises(CheckpointError, match=r"llm\.pt"):
        TorchEngine.from_directory(tmp_path, config)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "llm.pt")
    with pytest.raises(CheckpointError, match="missing"):
        TorchEngine.from_directory(tmp_path, config)


def test_bfloat16_runs(golden_lm: Path, engine: TorchEngine) -> None:
    half = TorchEngine.from_directory(golden_lm / "ckpt", engine.config, dtype=torch.bfloat16)
    tokens = alone(half, request(engine, 1, tokens=10, min_tokens=10))
    assert len(tokens) == 10
