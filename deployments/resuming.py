"""How far an answer was heard, so that the rest can be asked of another replica. Knows neither Ray nor sound."""

from __future__ import annotations

from dataclasses import replace

from deployments.messages import FROM_THE_START, ResumePoint, ScriptCall, SpeakCall, SpeechChunk

_ATTEMPTS = 4
_PAUSE_S = 0.5


class Resuming:
    """Follows one answer; None for a call whose text cannot be told again.

    Attempts in a row that bring no more sound are counted, and come after growing pauses but for the first.
    """

    def __init__(self, call: SpeakCall | ScriptCall | None) -> None:
        self._call = call
        self._point = call.resume if call is not None else FROM_THE_START
        self._failures = 0

    @property
    def call(self) -> SpeakCall | ScriptCall:
        assert self._call is not None
        return self._call

    def heard(self, chunk: SpeechChunk) -> None:
        """A chunk has come."""
        if not len(chunk.samples):
            return
        point = self._point
        # An answer that goes on after (0, all samples) may begin in any segment: its samples are counted on.
        before = point.samples if chunk.segment == point.segment else 0
        self._point = ResumePoint(chunk.segment, before + len(chunk.samples))
        self._failures = 0

    def pause_s(self) -> float | None:
        """After a failure: seconds to wait before the next attempt, None when there is none."""
        self._failures += 1
        if self._call is None or self._failures > _ATTEMPTS:
            return None
        return _PAUSE_S * 2 ** (self._failures - 2) if self._failures > 1 else 0.0

    @property
    def rest(self) -> SpeakCall | ScriptCall:
        """The call for what has not been heard."""
        return replace(self.call, resume=self._point)
