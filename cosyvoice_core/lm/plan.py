"""What an utterance wants from an engine next, and the plan of an utterance whose text is complete.

A plan owns the utterance's token context and rules; any engine that can feed ids and predict one can drive it.
Knows neither scores nor caches. Source: docs/model.md, "Speech-token LM".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cosyvoice_core.errors import EngineError
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Predict:
    """Feed whatever of the plan's context is not fed yet, then predict.

    Legal are all speech tokens and `closing`, the one other id that means something now, if any. Up to `budget`
    ids may be predicted, each fed back, before the plan must be asked again; a closing id ends that run.
    """

    closing: int | None
    budget: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be predicted until more text arrives or the text ends."""


@dataclass(frozen=True, slots=True)
class Done:
    """The utterance is complete: it ended itself, or reached its greatest length."""

    reason: FinishReason


Action = Predict | Wait | Done


class Plan(Protocol):
    """One utterance, as any engine sees it."""

    @property
    def context(self) -> Sequence[int]:
        """Merged ids of the sequence so far; only ever appended to."""

    @property
    def spoken(self) -> Sequence[int]:
        """Speech tokens predicted so far."""

    def next(self) -> Action:
        """What to do now; asking twice changes nothing."""

    def produced(self, id_: int) -> bool:
        """Take the id that followed the context; True when it is a speech token, hence to be emitted.

        Raises EngineError when the id is not one that `next` allows.
        """


class CompleteText:
    """Plan of `[sos] text [task] ...`: speech until eos, which is legal from `min_tokens` on."""

    def __init__(
        self, vocabulary: SpeechVocabulary, prompt_ids: Sequence[int], min_tokens: int, max_tokens: int
    ) -> None:
        self.context: list[int] = list(prompt_ids)
        self.spoken: list[int] = []
        self._vocabulary = vocabulary
        self.min_tokens = min_tokens
        self._max_tokens = max_tokens
        self._reason: FinishReason | None = None

    def next(self) -> Action:
        count = len(self.spoken)
        if self._reason is not None:
            return Done(self._reason)
        if count >= self._max_tokens:
            return Done("length")
        if count < self.min_tokens:
            return Predict(None, self.min_tokens - count)
        return Predict(self._vocabulary.eos, self._max_tokens - count)

    def produced(self, id_: int) -> bool:
        require_legal(self.next(), id_, self._vocabulary)
        if id_ == self._vocabulary.eos:
            self._reason = "stop"
            return False
        self.context.append(id_)
        self.spoken.append(id_)
        return True


def require_legal(action: Action, id_: int, vocabulary: SpeechVocabulary) -> None:
    """Raise EngineError unless `action` is a prediction that allows `id_`."""
    if isinstance(action, Predict) and (0 <= id_ < vocabulary.speech_tokens or id_ == action.closing):
        return
    raise EngineError(f"id {id_} cannot follow here: {action}")
