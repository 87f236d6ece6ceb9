"""From the teacher's marks to segments of time, and from segments to labels per frame and per speech token.

Knows phones as strings and nothing of codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.demo_voice.data.espeak import Mark, Spoken

IntArray = npt.NDArray[np.int64]

SILENCE = "_"
TOKEN_RATE = 25
FRAME_RATE = 50


@dataclass(frozen=True, slots=True)
class Segment:
    """Something that lasts from `start` to `stop`, in seconds."""

    label: str
    start: float
    stop: float


def phone_segments(spoken: Spoken, first: int, last: int) -> tuple[Segment, ...]:
    """Phones and silences of the samples first..last, without gaps; times count from `first`.

    Mnemonics that begin with `_` are pauses and become one silence. Phones of no length are left out.
    """
    marks = [Mark(first, phone=SILENCE), *(mark for mark in spoken.phones if mark.sample < last)]
    ends = [mark.sample for mark in marks[1:]] + [last]
    segments: list[Segment] = []
    for mark, end in zip(marks, ends, strict=True):
        start, stop = (max(sample - first, 0) / spoken.rate for sample in (mark.sample, end))
        label = SILENCE if mark.phone.startswith(SILENCE) else mark.phone
        if stop <= start:
            continue
        if segments and label == segments[-1].label == SILENCE:
            segments[-1] = Segment(SILENCE, segments[-1].start, stop)
        else:
            segments.append(Segment(label, start, stop))
    return tuple(segments)


def word_segments(spoken: Spoken, text: str, first: int, last: int) -> tuple[Segment, ...]:
    """Words of the text, each until the next one or the next pause; times count from sample `first`."""
    pauses = [mark.sample for mark in spoken.phones if mark.phone.startswith(SILENCE)]
    starts = [word.sample for word in spoken.words]
    segments = []
    for word in spoken.words:
        stop = min([sample for sample in (*starts, *pauses) if sample > word.sample], default=last)
        start, end = ((sample - first) / spoken.rate for sample in (word.sample, min(stop, last)))
        if end > start:
            segments.append(Segment(text[word.first_letter : word.first_letter + word.letters], start, end))
    return tuple(segments)


def per_frame(segments: Sequence[Segment], frames: int, rate: float) -> IntArray:
    """(frames,) index of the segment in which the middle of each frame lies, -1 where there is none."""
    middles = (np.arange(frames) + 0.5) / rate
    starts = np.array([segment.start for segment in segments])
    stops = np.array([segment.stop for segment in segments])
    index = np.searchsorted(starts, middles, side="right") - 1
    inside = (index >= 0) & (middles < stops[np.maximum(index, 0)])
    return np.where(inside, index, -1).astype(np.int64)


def token_runs(segments: Sequence[Segment], tokens: int) -> tuple[tuple[Segment, ...], IntArray]:
    """Segments and how many of the `tokens` speech tokens each takes: (segments,), every one at least one.

    Ends are rounded to whole tokens, then moved as little as needed to give phones shorter than a token one of their
    own: a token sequence that leaves out a phone would not be a function of the text. Where there are more segments
    than tokens the shortest are left out. Raises ValueError without segments or tokens.
    """
    if not segments or tokens < 1:
        raise ValueError(f"need segments and tokens, got {len(segments)} and {tokens}")
    kept = list(segments)
    while len(kept) > tokens:
        kept.remove(min(kept, key=lambda segment: segment.stop - segment.start))
    count = len(kept)
    ends = np.array([round(segment.stop * TOKEN_RATE) for segment in kept], np.int64)
    order = np.arange(count)
    # Each end lies at least one token behind the one before, and leaves one for each segment after it.
    ends = np.maximum.accumulate(ends - order) + order
    ends = np.minimum(np.maximum(ends, order + 1), tokens - (count - 1 - order))
    ends[-1] = tokens
    return tuple(kept), np.diff(ends, prepend=0)
