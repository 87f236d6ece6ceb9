"""Faster or slower speech by stretching mel over time, whole or in pieces.

Knows nothing of how mel is voiced. Source: docs/model.md, "Streaming" and "Differences from the original".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.errors import InputError

MIN_SPEED = 0.5
MAX_SPEED = 2.0


def resize_mel(mel: Tensor, speed: float) -> Tensor:
    """Mel (mel_bins, T) to (mel_bins, int(T / speed)) by linear interpolation.

    Frame j is read at max((j + 0.5) * speed - 0.5, 0), at most the last frame. Raises InputError for a speed out of
    range. The original derives the step from the rounded length instead (`reference_resize`), which needs the whole
    utterance before the first frame; over an utterance the two drift apart by less than `speed` frames.
    """
    return SpeedStream(speed).push(mel, last=True)


def reference_resize(mel: Tensor, speed: float) -> Tensor:
    """The original's resampling of mel (B, mel_bins, T) to (B, mel_bins, int(T / speed)). For parity only."""
    _check_speed(speed)
    return F.interpolate(mel, size=int(mel.shape[2] / speed), mode="linear", align_corners=False)


class SpeedStream:
    """`resize_mel` for mel that arrives in pieces, equal to it bit by bit whatever the pieces.

    A frame is given out as soon as the two frames it lies between are there; those before the next one's position
    are forgotten. What was given out is final: positions depend on the frame number alone.
    """

    def __init__(self, speed: float) -> None:
        """Raise InputError for a speed outside 0.5 to 2."""
        _check_speed(speed)
        self._speed = speed
        self._kept: Tensor | None = None
        self._first = 0
        self._given = 0
        self._complete = False

    def push(self, mel: Tensor, last: bool) -> Tensor:
        """Mel (mel_bins, T), T from 0 on, to the stretched frames (mel_bins, T') that it completes.

        Raises InputError for mel of another shape or after the last push.
        """
        if self._complete:
            raise InputError("mel", "came after the last piece of its utterance", "one last piece")
        if mel.dim() != 2 or (self._kept is not None and mel.shape[0] != self._kept.shape[0]):
            raise InputError("mel", f"shape {tuple(mel.shape)}", "(mel bins, frames), as many bins in every piece")
        self._complete = last
        kept = mel if self._kept is None else torch.cat([self._kept, mel], 1)
        arrived = self._first + kept.shape[1]
        stop = max(self._stop(arrived, last), self._given)
        positions = [self._position(frame) for frame in range(self._given, stop)]
        left = [min(int(position), arrived - 1) - self._first for position in positions]
        right = [min(math.ceil(position), arrived - 1) - self._first for position in positions]
        share = mel.new_tensor([position - int(position) for position in positions])
        # Two products and a sum, each rounded alone: fused forms may round differently at a piece's end.
        before = kept[:, left] * (1 - share)
        stretched = before.add_(kept[:, right] * share)
        forgotten = min(max(int(self._position(stop)) - self._first, 0), kept.shape[1])
        self._kept, self._first, self._given = kept[:, forgotten:], self._first + forgotten, stop
        return stretched

    def _position(self, frame: int) -> float:
        return max((frame + 0.5) * self._speed - 0.5, 0.0)

    def _stop(self, arrived: int, last: bool) -> int:
        """How many frames can be given out in all once `arrived` have come."""
        stop = int(arrived / self._speed)
        if not last:
            while stop and math.ceil(self._position(stop - 1)) >= arrived:
                stop -= 1
        return stop


def _check_speed(speed: float) -> None:
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise InputError("speed", f"{speed} is out of range", f"{MIN_SPEED:g} to {MAX_SPEED:g}")
