"""The original's bi-stream procedure with its flaws, to show that ours differs from it where documented only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cosyvoice_core.lm.vocabulary import SpeechVocabulary

Best = Callable[[Sequence[int], Sequence[int]], int]
"""(ids to feed next, masked ids) -> best id after them."""


class SampledStopError(Exception):
    """A stop id came where the original knows no way on."""


@dataclass(frozen=True)
class Step:
    text_consumed: int
    input: list[int]
    produced: int
    forced: bool


@dataclass
class ReferenceInterleave:
    """Text block by text block, with at most one block per arriving text token.

    Documented flaws: after fill the input that was fed last is fed again at the end of the text; prompt speech that
    found no text is dropped; a prompt of whole blocks is continued without adding text.
    """

    vocabulary: SpeechVocabulary
    best: Best
    text_block: int
    speech_block: int
    steps: list[Step] = field(default_factory=list)
    emitted: list[int] = field(default_factory=list)
    _generated: list[int] = field(default_factory=list)

    def run(self, text: Sequence[int], prompt_text: Sequence[int], prompt_speech: Sequence[int]) -> None:
        cache, queue = self.vocabulary.text(prompt_text), list(prompt_speech)
        pending = [self.vocabulary.sos]
        next_fill = (len(queue) // self.speech_block + 1) * self.speech_block - len(queue)
        for consumed, id_ in enumerate(self.vocabulary.text(text), start=1):
            cache.append(id_)
            while queue and len(cache) >= self.text_block:
                pending += cache[: self.text_block] + queue[: self.speech_block]
                del cache[: self.text_block], queue[: self.speech_block]
            if queue:
                continue
            after_fill = self._generated[-1:] == [self.vocabulary.fill]
            if after_fill or (not self._generated and len(pending) == 1):
                if len(cache) < self.text_block:
                    continue
                pending = ([] if after_fill else pending) + cache[: self.text_block]
                del cache[: self.text_block]
            pending, next_fill = self._block(pending, next_fill, consumed)
        self._last_block(pending + cache + [self.vocabulary.task], len(text))

    def _block(self, pending: list[int], next_fill: int, consumed: int) -> tuple[list[int], int]:
        while True:
            forced = len(self._generated) == next_fill
            found = self.best(pending, [self.vocabulary.eos])
            id_ = self.vocabulary.fill if forced else found
            self.steps.append(Step(consumed, list(pending), id_, forced))
            if id_ == self.vocabulary.fill:
                next_fill = len(self._generated) + self.speech_block + 1
                self._generated.append(id_)
                return pending, next_fill
            if id_ in self.vocabulary.stop_ids:
                raise SampledStopError(id_)
            self._emit(id_)
            pending = [id_]

    def _last_block(self, pending: list[int], consumed: int) -> None:
        while True:
            id_ = self.best(pending, [])
            self.steps.append(Step(consumed, list(pending), id_, False))
            if id_ == self.vocabulary.eos:
                return
            if id_ in self.vocabulary.stop_ids:
                raise SampledStopError(id_)
            self._emit(id_)
            pending = [id_]

    def _emit(self, id_: int) -> None:
        self._generated.append(id_)
        self.emitted.append(id_)
