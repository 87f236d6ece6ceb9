"""The language model on vLLM: many utterances in one running batch, in a process of its own; see `TokenEngine`.

What an utterance may say next is decided by its plan in `cosyvoice_core.lm`, as in the torch engine; vLLM computes and
draws. The whole context of an utterance is known here, so it can leave the engine and come back at any token: its
draws depend on seed and position alone, and what it had computed is found in the prefix cache.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import torch
from vllm.exceptions import VLLMError
from vllm.inputs import tokens_input
from vllm.v1.engine.exceptions import EngineDeadError

from cosyvoice_core.config import LMConfig
from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.lm.interleave import Interleave
from cosyvoice_core.lm.plan import CompleteText, Done, Plan, Predict
from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from deployments.messages import Finish
from deployments.speech_lm import vllm_process
from deployments.speech_lm.engine import EngineDiedError, TokenBatch
from deployments.speech_lm.places import Place, Places
from deployments.speech_lm.ras_params import broken_id
from deployments.speech_lm.vllm_args import VllmArgs
from deployments.speech_lm.vllm_text import ArrivingText
from deployments.speech_lm.vllm_turns import Conversation, Turn
from deployments.work import CpuClock, cpu_of_process


class VllmTokenEngine:
    """Continuous batching by vLLM; see `TokenEngine`. `set_environment` must have run before this is imported."""

    name = "vllm"

    def __init__(
        self,
        folder: Path,
        config: LMConfig,
        *,
        device: torch.device,
        dtype: torch.dtype,
        max_sequences: int,
        args: VllmArgs,
        token_rate: float = 25.0,
        stat_loggers: list[Any] | None = None,
    ) -> None:
        """folder: made by `ConvertedModels`. Blocks until the engine runs. Raises EngineError for a wrong vLLM."""
        self.vocabulary = SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)
        self._config = config
        self._device = device
        args = args.model_copy(update={"max_model_len": min(args.max_model_len, config.max_positions)})
        self._room = args.max_model_len
        self._idle_s = args.idle_release_s
        self.places = Places(max_sequences, args.yield_lead_s, token_rate)
        self._numbers = itertools.count()
        self._llm = vllm_process.start(folder, device, dtype, max_sequences, args, stat_loggers or [])

    @property
    def unfinished(self) -> int:
        """Requests that vLLM holds, paused ones included."""
        return int(self._llm.get_num_unfinished_requests())

    @property
    def asking(self) -> int:
        """Utterances that are being spoken or wait to be; not those that wait for text and gave their place back."""
        return self.places.asking

    @property
    def process(self) -> int:
        """Process id of the engine."""
        return int(self._llm.engine_core.resources.engine_manager.processes[0].pid)

    async def generate(self, request: TokenRequest, lead_s: float = 0.0) -> AsyncGenerator[TokenBatch, None]:
        prompt = self.vocabulary.merged(request.prompt_ids)
        self._require_room(len(prompt) + max(request.min_tokens, 1))
        plan = CompleteText(self.vocabulary, prompt, request.min_tokens, request.max_tokens)
        for id_ in self.vocabulary.speech(request.history):
            plan.produced(id_)
        place = Place(self.places, lead_s)
        finish: Finish | None = None
        while finish is None:
            left = min(request.max_tokens - len(plan.spoken), self._room - len(plan.context))
            if left < 1:
                yield TokenBatch((), Finish.LENGTH)
                return
            turn = Turn(
                closing=self.vocabulary.eos,
                max_tokens=left,
                min_tokens=max(0, request.min_tokens - len(plan.spoken)),
                position=len(plan.spoken),
                prompt=len(prompt),
            )
            async with aclosing(self._stretch(plan, turn, request, place)) as batches:
                async for batch in batches:
                    finish = batch.finish
                    yield batch

    async def generate_stream(
        self, request: StreamRequest, text: AsyncIterator[tuple[int, ...]]
    ) -> AsyncGenerator[TokenBatch, None]:
        plan = self._interleave(request)
        async with (
            ArrivingText(plan, text, self._room) as arriving,
            aclosing(self._speak(plan, request, arriving)) as batches,
        ):
            async for batch in batches:
                yield batch

    @property
    def held(self) -> int:
        return self.unfinished + self.asking

    def cpu_clock(self) -> CpuClock | None:
        return cpu_of_process(self.process) if self._device.type == "cpu" else None

    async def check_health(self) -> None:
        try:
            await self._llm.check_health()
        except EngineDeadError as error:
            raise EngineDiedError("the vLLM engine process has died") from error

    def shutdown(self) -> None:
        """End the engine process; blocks for some seconds."""
        self._llm.shutdown()

    async def _stretch(
        self, plan: CompleteText, turn: Turn, request: TokenRequest, place: Place
    ) -> AsyncGenerator[TokenBatch, None]:
        """Ids until the utterance ends or its place is needed more by another."""
        prompt = tokens_input(list(plan.context))
        params = turn.params(request, self.vocabulary)
        place.ask()
        try:
            with _translated():
                async with aclosing(
                    self._llm.generate(prompt, params, self._name(), priority=place.priority)
                ) as outputs:
                    async for output in outputs:
                        completion = output.outputs[0]
                        batch = self._batch(plan, completion.token_ids, completion.finish_reason is not None)
                        place.took(len(batch.ids))
                        yield batch
                        if batch.finish is None and place.should_yield():
                            return
        finally:
            place.released()

    async def _speak(
        self, plan: Interleave, request: StreamRequest, arriving: ArrivingText
    ) -> AsyncGenerator[TokenBatch, None]:
        """All turns of a stream. Its conversation is closed when no text comes or its place is needed more by another;
        a new one reads the context anew."""
        replay = deque(request.history)
        position, prompt, fed = 0, 0, 0
        place = Place(self.places)
        talk: Conversation | None = None
        try:
            while True:
                arriving.check()
                action = plan.next()
                if isinstance(action, Done):
                    if replay:
                        raise EngineError(f"the utterance ends {len(replay)} ids before its history does")
                    yield TokenBatch((), Finish(action.reason))
                    return
                if not isinstance(action, Predict):
                    if talk is None:
                        await arriving.more(None)
                    elif not await self._text_in_time(arriving, place):
                        await talk.close()
                        talk, fed = None, 0
                    continue
                prompt = prompt or len(plan.context)
                if replay:
                    plan.produced(replay.popleft())
                    position += 1
                    continue
                left = min(action.budget, self._room - len(plan.context))
                if left < 1:
                    yield TokenBatch((), Finish.LENGTH)
                    return
                params = Turn(action.closing, left, 0, position, prompt).params(request, self.vocabulary)
                if talk is None:
                    talk = Conversation(self._llm, self._name(), place, params)
                begun, predicted, needed_more = len(plan.context), 0, False
                with _translated():
                    async with aclosing(talk.turn(plan.context[fed:], params)) as portions:
                        async for ids in portions:
                            batch = self._batch(plan, ids, last=False)
                            predicted += len(ids)
                            place.took(len(batch.ids))
                            if batch.ids or batch.closed_block or batch.finish is not None:
                                yield batch
                            if batch.finish is not None:
                                return
                            needed_more = place.should_yield()
                            if needed_more:
                                break
                position += predicted
                # Neither the id that closed the block nor, without one, the last speech token has been read by vLLM.
                fed = begun + predicted - 1
                if needed_more:
                    await talk.close()
                    talk, fed = None, 0
        finally:
            if talk is not None:
                await talk.close()

    async def _text_in_time(self, arriving: ArrivingText, place: Place) -> bool:
        """Wait for text; False when it takes too long for an utterance that holds a place, or another wants that."""
        with place.resting(arriving.wake):
            came = await arriving.more(self._idle_s)
        return came and not place.wanted

    def _batch(self, plan: Plan, ids: list[int] | tuple[int, ...], last: bool) -> TokenBatch:
        """What the plan makes of predicted ids. Raises EngineError when one may not be said here."""
        if broken_id(self.vocabulary.speech_tokens) in ids:
            raise EngineError("the language model's scores are not numbers")
        spoken = tuple(id_ for id_ in ids if plan.produced(id_))
        action = plan.next()
        if isinstance(action, Done):
            return TokenBatch(spoken, Finish(action.reason))
        return TokenBatch(spoken, Finish.LENGTH if last else None, closed_block=self.vocabulary.fill in ids)

    def _interleave(self, request: StreamRequest) -> Interleave:
        self.vocabulary.speech(id_ for id_ in request.history if id_ != self.vocabulary.fill)
        plan = Interleave(
            self.vocabulary,
            request.prompt_text_ids,
            request.prompt_speech,
            preamble_ids=request.preamble_ids,
            text_block=self._config.text_block,
            speech_block=self._config.speech_block,
            min_ratio=request.min_ratio,
            max_ratio=request.max_ratio,
        )
        self._require_room(len(plan.context) + plan.queued + 1)
        return plan

    def _require_room(self, positions: int) -> None:
        if positions > self._room:
            raise InputError("text", f"needs at least {positions} positions with its prompt", f"at most {self._room}")

    def _name(self) -> str:
        return f"utterance-{next(self._numbers)}"


@contextmanager
def _translated() -> Iterator[None]:
    """vLLM's errors as ours: a dead engine cuts the stream, to be replayed elsewhere; others fail this utterance."""
    try:
        yield
    except EngineDeadError as error:
        raise EngineDiedError("the vLLM engine process has died") from error
    except VLLMError as error:
        raise EngineError(f"vLLM could not decode the utterance: {error}") from error
