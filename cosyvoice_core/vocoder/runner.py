"""Batches of a few fixed shapes and sizes, all made ready before the first of them counts.

A device prepares code for every shape it meets: oneDNN compiles kernels for each convolution, which takes longer than
the window itself and of which it keeps a limited number; a CUDA graph is recorded for one shape. Knows nothing of
utterances or of which windows are urgent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from cosyvoice_core.recording import FixedWork, batch_sizes
from cosyvoice_core.vocoder.vocoder import Vocoder
from cosyvoice_core.vocoder.window import PreparedWindow, StreamWindow, VocodedWindow, WindowBatch, WindowShape, unpack

_KERNELS_PER_SHAPE = 256
"""Kernels that oneDNN makes for a window of one shape: 75 convolutions, and copies to and from its layouts. 181 were
counted on a CPU with AVX-512; it keeps 1024 of its own accord, and beyond that the one that rested longest goes."""


def reserve_kernels(shapes: int) -> None:
    """Let oneDNN keep the kernels of so many shapes and batch sizes, unless the environment has a word on it already.

    It reads this once, before the first convolution of the process.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(max(_KERNELS_PER_SHAPE * shapes, 1024)))


class WindowRunner:
    """Runs windows of one shape together, in batches of 1, 2, 4 ... rows up to `max_batch`."""

    def __init__(self, vocoder: Vocoder, window: StreamWindow, max_batch: int, *, record: bool = False) -> None:
        """`record` replays CUDA graphs. Raises ValueError for a batch below 1 and for graphs on another device."""
        if max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, got {max_batch}")
        if record and vocoder.device.type != "cuda":
            raise ValueError(f"CUDA graphs need a CUDA device, the vocoder is on {vocoder.device}")
        self.window = window
        self.max_batch = max_batch
        self._vocoder = vocoder
        self._record = record
        self._recorded: dict[tuple[WindowShape, int], FixedWork] = {}

    def batch_sizes(self) -> list[int]:
        """Numbers of rows that batches have; smaller ones are filled up."""
        return batch_sizes(self.max_batch)

    def cases(self) -> list[tuple[WindowShape, int]]:
        """Every shape at every batch size."""
        return [(shape, rows) for shape in self.window.shapes() for rows in self.batch_sizes()]

    def warm_up(self) -> int:
        """Run every shape at every batch size once; returns how many there are."""
        cases = self.cases()
        # Largest first, so that smaller ones find memory that fits.
        for shape, rows in sorted(cases, key=lambda case: case[0].frames * case[1], reverse=True):
            blank = WindowBatch.blank(self._vocoder, shape, rows)
            vocode = partial(blank.vocode, self._vocoder)
            if self._record:
                self._recorded[shape, rows] = FixedWork(blank.tensors, vocode, record=True)
            else:
                vocode()
        return len(cases)

    def run(self, windows: Sequence[PreparedWindow]) -> list[VocodedWindow]:
        """What becomes of windows of one shape, at most `max_batch` of them."""
        rows = next(size for size in self.batch_sizes() if size >= len(windows))
        batch = WindowBatch.of(self._vocoder, [*windows, *[windows[-1]] * (rows - len(windows))])
        recorded = self._recorded.get((batch.shape, rows))
        audio, source, phases = recorded.run(batch.tensors) if recorded else batch.vocode(self._vocoder)
        return unpack(windows, audio, source, phases)
