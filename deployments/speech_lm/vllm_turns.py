"""What one stretch of prediction asks of vLLM, and a request whose prompt grows from stretch to stretch.

Sampling parameters are built from a closed set here and nowhere else: one foreign id, or a penalty, kills vLLM's engine
process for everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from vllm import SamplingParams
from vllm.engine.protocol import StreamingInput
from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind

from cosyvoice_core.errors import EngineError
from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from deployments.speech_lm.places import Place
from deployments.speech_lm.ras_params import RasParams

_NEVER = -100.0
"""Added to the scores of ids that mean nothing now; vLLM takes no less."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One stretch: up to max_tokens ids, ended by `closing`, the one id past the speech that may be said.

    position: how many ids of the utterance were predicted before; prompt: length of the sequence when the first of
    them was.
    """

    closing: int | None
    max_tokens: int
    min_tokens: int
    position: int
    prompt: int

    def params(self, request: TokenRequest | StreamRequest, vocabulary: SpeechVocabulary) -> SamplingParams:
        ras = RasParams(request.sampling, start=self.prompt, seed=request.seed, position=self.position)
        return SamplingParams(
            temperature=0.0 if request.greedy else 1.0,
            max_tokens=self.max_tokens,
            min_tokens=self.min_tokens,
            stop_token_ids=[] if self.closing is None else [self.closing],
            logit_bias={id_: _NEVER for id_ in vocabulary.stop_ids if id_ != self.closing},
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=None if request.greedy else ras.extra_args(),
        )


class Conversation:
    """A vLLM request that is given more prompt after each turn; what it has computed stays in the engine.

    vLLM forgets the last id of a turn, which it has not computed yet: right for an id that closes a block and is never
    read back, and otherwise it must stand first in the next prompt.
    """

    def __init__(self, engine: Any, name: str, place: Place, params: SamplingParams) -> None:
        """place: held from now until `close`."""
        self._prompts: asyncio.Queue[StreamingInput] = asyncio.Queue()
        self._place = place
        place.ask()
        self._outputs = engine.generate(self._inputs(), params, name, priority=place.priority)

    async def turn(self, prompt: Sequence[int], params: SamplingParams) -> AsyncGenerator[tuple[int, ...], None]:
        """Ids of one turn, the closing one included."""
        self._prompts.put_nowait(StreamingInput(prompt=tokens_input(list(prompt)), sampling_params=params))
        async for output in self._outputs:
            completion = output.outputs[0]
            yield tuple(completion.token_ids)
            if completion.finish_reason is not None:
                return
        raise EngineError("vLLM ended a conversation in the middle of a turn")

    async def close(self) -> None:
        """Free its place and its cache in the engine, in the middle of a turn too."""
        try:
            await self._outputs.aclose()
        finally:
            self._place.released()

    async def _inputs(self) -> AsyncGenerator[StreamingInput, None]:
        while True:
            yield await self._prompts.get()
