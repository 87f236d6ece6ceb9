"""Continuous batching of many utterances on the torch decoder: synchronous, one forward per step, no threads.

Plans say what each utterance wants, the body computes, the sampler chooses; this file only brings them together.
Knows neither audio nor network. Source: docs/model.md, "Speech-token LM".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import LMConfig
from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.lm.body import Span, SpeechBody
from cosyvoice_core.lm.interleave import Interleave
from cosyvoice_core.lm.merge import merge
from cosyvoice_core.lm.plan import Action, CompleteText, Done, Predict
from cosyvoice_core.lm.request import StreamRequest, TokenEvent, TokenRequest
from cosyvoice_core.lm.sampler import Sampler
from cosyvoice_core.lm.sequence import TokenSequence
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

_CHUNK = 256


class TorchEngine:
    """Runs any number of sequences; each call of `step` predicts one id for every sequence that is ready.

    On a CPU in float32 a sequence's tokens do not depend on its company, nor on having been replayed. A step that
    raises has changed nothing and can be repeated.
    """

    def __init__(
        self, body: SpeechBody, vocabulary: SpeechVocabulary, config: LMConfig, *, prefill_tokens: int = 1024
    ) -> None:
        """prefill_tokens: after so many rows of prompts a step begins no further chunk of one, so that long prompts
        delay running utterances by a bounded time."""
        if (body.input_rows, body.head_rows) != (vocabulary.input_rows, vocabulary.head_rows):
            raise ValueError("the body was built for another vocabulary")
        if prefill_tokens < 1:
            raise ValueError(f"prefill_tokens must be positive, got {prefill_tokens}")
        self.vocabulary = vocabulary
        self.body = body
        self.config = config
        self._sampler = Sampler(vocabulary)
        self._prefill_tokens = prefill_tokens
        self._sequences: dict[int, TokenSequence] = {}
        self._next_number = 0

    @classmethod
    def from_directory(
        cls,
        path: Path,
        config: LMConfig,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        vocabulary: SpeechVocabulary | None = None,
    ) -> TorchEngine:
        """Load `llm.pt` of a model directory; the vocabulary is CosyVoice2's unless another is given.

        Raises CheckpointError when the file is missing or does not fit `config`.
        """
        known = vocabulary or SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)
        file = Path(path) / "llm.pt"
        merged = merge(read_state(file), config, known, str(file), dtype)
        return cls(SpeechBody(merged, config, device, dtype), known, config)

    @property
    def pending(self) -> int:
        """Sequences that are not finished, those waiting for text included."""
        return len(self._sequences)

    @property
    def ready(self) -> bool:
        """Whether a step has anything to do; when not, all that is pending waits for text."""
        return any(not sequence.waiting for sequence in self._sequences.values())

    def add(self, request: TokenRequest | StreamRequest) -> int:
        """Accept a request; returns the number that its events carry.

        Raises InputError when an id is unknown or the prompt leaves no room in the model's context.
        """
        plan = self._plan(request)
        ahead = plan.queued if isinstance(plan, Interleave) else plan.min_tokens
        self._check_room(len(plan.context) + ahead)
        number = self._next_number
        self._next_number += 1
        cache = self.body.new_cache()
        self._sequences[number] = TokenSequence(request, plan, cache, row_exact=self.body.row_exact)
        return number

    def extend(self, sequence: int, text_ids: Iterable[int], end: bool = False) -> None:
        """More text (tokenizer ids) for a stream; `end` says that it was the last.

        Raises InputError when an id is unknown or the context overflows, EngineError when the sequence is not a
        stream that is running.
        """
        running = self._sequences.get(sequence)
        plan = running.plan if running is not None else None
        if not isinstance(plan, Interleave):
            raise EngineError(f"sequence {sequence} is not a running stream")
        ids = list(text_ids)
        self._check_room(len(plan.context) + plan.queued + len(ids))
        plan.feed_text(ids)
        if end:
            plan.end_text()

    def cancel(self, sequence: int) -> None:
        """Drop a sequence and its cache; a finished or unknown one is no error."""
        self._sequences.pop(sequence, None)

    def step(self) -> list[TokenEvent]:
        """One forward over all sequences that are ready; returns at once when none is.

        A sequence that fails gets an event with its error; others are unharmed.
        """
        events: list[TokenEvent] = []
        ready: list[tuple[int, TokenSequence, Predict]] = []
        for number, sequence in list(self._sequences.items()):
            try:
                action = sequence.advance()
            except EngineError as error:
                events.append(self._failed(number, error))
                continue
            action = self._within_context(sequence, action)
            if isinstance(action, Done):
                events.append(self._finished(number, (), action))
            elif isinstance(action, Predict):
                ready.append((number, sequence, action))
        return events + self._predict(ready)

    def generate(self, request: TokenRequest) -> Iterator[int]:
        """Tokens of one request, on an engine that is otherwise idle.

        Raises EngineError when the sequence fails or the engine is not idle.
        """
        if self.pending:
            raise EngineError("other sequences are running; their events would be lost")
        sequence = self.add(request)
        try:
            while True:
                for event in self.step():
                    yield from event.tokens
                    if event.error is not None:
                        raise event.error
                    if event.finished:
                        return
        finally:
            self.cancel(sequence)

    def _plan(self, request: TokenRequest | StreamRequest) -> CompleteText | Interleave:
        self.vocabulary.speech(
            id_ for id_ in request.history if isinstance(request, TokenRequest) or id_ != self.vocabulary.fill
        )
        if isinstance(request, TokenRequest):
            prompt = self.vocabulary.merged(request.prompt_ids)
            return CompleteText(self.vocabulary, prompt, request.min_tokens, request.max_tokens)
        return Interleave(
            self.vocabulary,
            request.prompt_text_ids,
            request.prompt_speech,
            preamble_ids=request.preamble_ids,
            text_block=self.config.text_block,
            speech_block=self.config.speech_block,
            min_ratio=request.min_ratio,
            max_ratio=request.max_ratio,
        )

    def _check_room(self, positions: int) -> None:
        if positions > self.config.max_positions:
            raise InputError(
                "text",
                f"needs at least {positions} positions with its prompt",
                f"at most {self.config.max_positions}",
            )

    def _within_context(self, sequence: TokenSequence, action: Action) -> Action:
        """An utterance that has filled the model's context ends there, as at its greatest length."""
        if isinstance(action, Predict) and len(sequence.plan.context) > self.config.max_positions:
            return Done("length")
        return action

    def _predict(self, ready: list[tuple[int, TokenSequence, Predict]]) -> list[TokenEvent]:
        spans: list[Span] = []
        budget = self._prefill_tokens
        complete: list[tuple[int, TokenSequence, Predict]] = []
        last_rows: list[int] = []
        ids: list[int] = []
        for number, sequence, action in ready:
            decoding = sequence.unfed == 1
            if not decoding and budget <= 0:
                continue
            taken = sequence.spans(1 if decoding else budget, _CHUNK)
            budget -= 0 if decoding else sum(span.rows for span in taken)
            spans += taken
            ids += sequence.plan.context[taken[0].start : taken[-1].end]
            if taken[-1].end == len(sequence.plan.context):
                complete.append((number, sequence, action))
                last_rows.append(len(ids) - 1)
        if not spans:
            return []
        hidden = self.body.forward(ids, spans)
        choices = [sequence.choice(action) for _, sequence, action in complete]
        chosen = self._sampler.choose(self.body.logits(hidden[last_rows]), choices) if complete else []
        # Not earlier: had the step raised before its ids were chosen, these rows would never be predicted from.
        for span in spans:
            span.cache.length = span.end
        for _, sequence, _ in ready:
            sequence.fed()
        return [self._took(number, id_) for (number, _, _), id_ in zip(complete, chosen, strict=True)]

    def _took(self, number: int, id_: int | None) -> TokenEvent:
        sequence = self._sequences[number]
        if id_ is None:
            return self._failed(number, EngineError("the language model's scores are not numbers"))
        tokens = (id_,) if sequence.take(id_) else ()
        action = sequence.plan.next()
        if isinstance(action, Done):
            return self._finished(number, tokens, action)
        return TokenEvent(number, tokens, False, closed_block=id_ == self.vocabulary.fill)

    def _finished(self, number: int, tokens: tuple[int, ...], done: Done) -> TokenEvent:
        self.cancel(number)
        return TokenEvent(number, tokens, True, done.reason)

    def _failed(self, number: int, error: EngineError) -> TokenEvent:
        self.cancel(number)
        return TokenEvent(number, (), True, error=error)
