"""A live vLLM engine with `RasProcessor`, in a process of its own: which model runner it has is settled at import.

`python -m tests.vllm.ras_engine FOLDER RESULT` decodes what is listed here with the converted model in FOLDER and
writes every token to RESULT as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.lm.interleave import Interleave
from cosyvoice_core.lm.plan import Predict
from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from deployments.speech_lm.ras_params import RasParams

TEXT_ROWS = 640
VOCABULARY = SpeechVocabulary.cosyvoice2(TEXT_ROWS)
LENGTH = 40
HEAD_START = 17


def prompt(text: Sequence[int], voice: Sequence[int] = ()) -> tuple[int, ...]:
    return (VOCABULARY.sos, *VOCABULARY.text(text), VOCABULARY.task, *voice)


FREE = [prompt(range(row, row + 4 + row), range(50, 50 + row % 3)) for row in range(16)]
"""Prompts decoded without a seed."""
NARROW = SamplingConfig(top_k=4)
"""For them: a nucleus so small that random weights repeat themselves, and the window shows."""
SEEDED = [
    TokenRequest(
        prompt(range(3 * row, 3 * row + 5 + 9 * row), range(1000, 1000 + 6 * row)),
        max_tokens=LENGTH + row,
        min_tokens=5 * row,
        seed=2**64 - 1 - row if row % 2 else row,
        sampling=(SamplingConfig(), SamplingConfig(temperature=0.7), SamplingConfig(tau=0.3))[row % 3],
    )
    for row in range(8)
]
STREAMS = [
    (StreamRequest((10, 20, 30, 40, 50, 60, 70), tuple(range(100, 2100, 50)), max_ratio=4.0, seed=5), 23),
    (StreamRequest((), (), max_ratio=5.0, min_ratio=2.0, seed=2**63), 14),
]
"""Requests whose text arrives in portions, and how many ids of text each gets."""


def text_of(count: int) -> list[int]:
    return [(7 * index) % TEXT_ROWS for index in range(count)]


def never(closing: int | None) -> dict[int, float]:
    return {id_: -100.0 for id_ in VOCABULARY.stop_ids if id_ != closing}


class Client:
    """Sends requests to an engine."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._number = 0

    async def tokens(self, ids: Sequence[int], closing: int | None, **options: Any) -> list[int]:
        """All ids of one request, the closing one included."""
        from vllm.inputs import tokens_input

        spoken: list[int] = []
        async for output in self._outputs(tokens_input(list(ids)), self.params(closing, **options)):
            spoken += output.outputs[0].token_ids
        return spoken

    @staticmethod
    def params(closing: int | None, **options: Any) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        stops = [] if closing is None else [closing]
        return SamplingParams(
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            stop_token_ids=stops,
            logit_bias=never(closing),
            **options,
        )

    async def seeded(self, request: TokenRequest, history: Sequence[int] = ()) -> list[int]:
        ras = RasParams(request.sampling, len(request.prompt_ids), request.seed, position=len(history))
        drawn = await self.tokens(
            (*request.prompt_ids, *history),
            VOCABULARY.eos,
            max_tokens=request.max_tokens - len(history),
            min_tokens=max(0, request.min_tokens - len(history)),
            extra_args=ras.extra_args(),
        )
        return [*history, *(id_ for id_ in drawn if id_ != VOCABULARY.eos)]

    async def stream(self, request: StreamRequest, text: list[int]) -> list[int]:
        """Tokens and a fill id for each block that was closed early, turn by turn as the plan wants them."""
        from vllm.engine.protocol import StreamingInput
        from vllm.inputs import tokens_input

        plan = Interleave(
            VOCABULARY,
            request.prompt_text_ids,
            request.prompt_speech,
            min_ratio=request.min_ratio,
            max_ratio=request.max_ratio,
        )
        plan.feed_text(text)
        plan.end_text()
        turns: asyncio.Queue[StreamingInput | None] = asyncio.Queue()
        log: list[int] = []
        start = held = 0

        def next_turn() -> StreamingInput | None:
            nonlocal start
            action = plan.next()
            if not isinstance(action, Predict):
                return None
            start = start or len(plan.context)
            ras = RasParams(request.sampling, start, request.seed, position=len(log))
            params = self.params(action.closing, max_tokens=action.budget, extra_args=ras.extra_args())
            return StreamingInput(prompt=tokens_input(plan.context[held:]), sampling_params=params)

        async def inputs() -> AsyncGenerator[StreamingInput, None]:
            while (turn := await turns.get()) is not None:
                yield turn

        first = next_turn()
        assert first is not None
        turns.put_nowait(first)
        async for output in self._outputs(inputs(), first.sampling_params):
            drawn = output.outputs[0].token_ids
            for id_ in drawn:
                plan.produced(id_)
            log += drawn
            if output.outputs[0].finish_reason is not None and not output.finished:
                # vLLM has not computed the last id of a turn and forgets it; a closing id is to be forgotten.
                held = len(plan.context) - (log[-1] < VOCABULARY.speech_tokens)
                turns.put_nowait(next_turn())
        return log

    def _outputs(self, source: Any, params: Any) -> AsyncGenerator[Any, None]:
        self._number += 1
        return self._engine.generate(source, params, f"request-{self._number}")

    async def refused(self, **options: Any) -> str | None:
        """What a request with these options is told; None if nothing."""
        from vllm.exceptions import VLLMValidationError

        try:
            await self.tokens(FREE[0], None, max_tokens=2, **options)
        except VLLMValidationError as error:
            return str(error)
        return None


async def decode(client: Client) -> dict[str, Any]:
    free = [
        client.tokens(ids, None, max_tokens=LENGTH, seed=row, extra_args=RasParams(NARROW, len(ids)).extra_args())
        for row, ids in enumerate(FREE)
    ]
    streams = [client.stream(request, text_of(count)) for request, count in STREAMS]
    greedy = client.tokens(FREE[3], None, max_tokens=LENGTH, temperature=0.0)
    everything = await asyncio.gather(*free, *map(client.seeded, SEEDED), *streams, greedy)
    seeded = everything[len(free) : len(free) + len(SEEDED)]
    penalty = await client.refused(repetition_penalty=1.2)
    scored = await client.refused(prompt_logprobs=1)
    args = await client.refused(extra_args={"ras": {"top_p": 0.8}})
    return {
        "free": everything[: len(free)],
        "seeded": seeded,
        "streams": everything[len(free) + len(SEEDED) : -1],
        "greedy": everything[-1],
        "errors": [penalty, scored, args],
        "alone": [await client.seeded(request) for request in SEEDED[2:4]],
        "resumed": [
            await client.seeded(request, tokens[:HEAD_START]) for request, tokens in zip(SEEDED, seeded, strict=True)
        ],
    }


async def run(folder: str) -> dict[str, Any]:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=folder,
            skip_tokenizer_init=True,
            generation_config="vllm",
            dtype="float32",
            max_model_len=512,
            max_num_seqs=32,
            block_size=32,
            enforce_eager=True,
            logits_processors=["deployments.speech_lm.ras_processor:RasProcessor"],
        )
    )
    try:
        return await decode(Client(engine))
    finally:
        engine.shutdown()


if __name__ == "__main__":
    tokens = asyncio.run(run(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(tokens))
