"""When what was asked for is heard: segments of the text, hops of their speech tokens, lines of a script.

What is known is where a segment's speech begins among the samples, and that a speech token lasts 40 ms at speed 1. The
model tells nothing of where words lie in a segment, so nothing is said of them. Knows no stages and no bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.ingress.options import Timestamps
from deployments.messages import SegmentStart, SpeechChunk

HOP_TOKENS = 25


@dataclass(frozen=True, slots=True)
class Moment:
    """An event: its type and fields."""

    kind: str
    fields: Mapping[str, object]


class Timeline:
    """Follows one answer; told of its chunks in order, it says which events come before and after each."""

    def __init__(self, timestamps: Timestamps, *, sample_rate: int, token_rate: float, lines: bool = False) -> None:
        """sample_rate: Hz of the chunks; lines: of a script are told, too."""
        self._segments = timestamps != "none"
        self._hops = timestamps == "hop"
        self._lines = lines
        self._sample_rate = sample_rate
        self._token_rate = token_rate
        self._line: int | None = None
        self._segment: tuple[int, SegmentStart] | None = None
        self._hop = 0

    def before(self, chunk: SpeechChunk, position: int) -> list[Moment]:
        """What the chunk begins; position: samples of the answer before it."""
        if chunk.begins is None:
            return self._ended(position) if self._segment and self._segment[0] != chunk.segment else []
        told = self._ended(position)
        start = self._s(chunk.begins.sample)
        if self._lines and chunk.line != self._line:
            self._line = chunk.line
            told.append(Moment("script.line.started", {"line": chunk.line, "start": start}))
        if self._segments:
            self._segment, self._hop = (chunk.segment, chunk.begins), 0
            fields = {"segment": chunk.segment, "text": chunk.begins.text, "start": start}
            told.append(Moment("speech.segment.started", fields))
        return told

    def after(self, position: int) -> list[Moment]:
        """Hops that are complete with the samples before position."""
        told = []
        while self._hops and self._segment is not None and self._hop_end(self._hop) <= position:
            told.append(self._hop_moment(self._hop_end(self._hop)))
        return told

    def end(self, position: int) -> list[Moment]:
        """The answer ends."""
        return self._ended(position)

    def _ended(self, position: int) -> list[Moment]:
        if self._segment is None:
            return []
        told = self.after(position)
        index, begins = self._segment
        if self._hops and position > self._hop_begin(self._hop):
            told.append(self._hop_moment(position))
        fields = {
            "segment": index,
            "text": begins.text,
            "start": self._s(begins.sample),
            "end": self._s(position),
        }
        self._segment = None
        return [*told, Moment("speech.segment.done", fields)]

    def _hop_moment(self, end: int) -> Moment:
        assert self._segment is not None
        index, begins = self._segment
        begin = self._hop_begin(self._hop)
        tokens = round((end - begin) / self._sample_rate * begins.speed * self._token_rate)
        fields = {
            "segment": index,
            "first_token": self._hop * HOP_TOKENS,
            "tokens": min(tokens, HOP_TOKENS),
            "start": self._s(begin),
            "end": self._s(end),
        }
        self._hop += 1
        return Moment("speech.hop.done", fields)

    def _hop_begin(self, number: int) -> int:
        assert self._segment is not None
        begins = self._segment[1]
        hop_s = HOP_TOKENS / self._token_rate / begins.speed
        return begins.sample + round(number * hop_s * self._sample_rate)

    def _hop_end(self, number: int) -> int:
        return self._hop_begin(number + 1)

    def _s(self, samples: int) -> float:
        return round(samples / self._sample_rate, 6)
