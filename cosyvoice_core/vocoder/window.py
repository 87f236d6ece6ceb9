"""Windows of utterances: what one step of a vocoder stream computes, apart from the stream's state.

A window is self-contained. It is filled up to one of a few fixed shapes, so that windows of different lengths and
utterances run as one batch, and so that what a device prepares for each shape (compiled kernels, recorded graphs) is
prepared for few. Knows nothing of when windows come or where their audio goes. Source: docs/model.md, "Exact
incremental computation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cosyvoice_core.vocoder.f0 import F0Predictor
from cosyvoice_core.vocoder.section import Extent, Span
from cosyvoice_core.vocoder.vocoder import Vocoder


@dataclass(frozen=True, slots=True)
class WindowShape:
    """Size of a window's tensors, in mel frames; all that windows must share to run in one batch.

    frames: room for mel, of which a window may use less. heard: frames at the start whose source is known. keep:
    frames that are decoded, of which a window may want less; an empty span computes source and phase only.
    """

    frames: int
    heard: int
    keep: Span


@dataclass(frozen=True, slots=True)
class StreamWindow:
    """Context of a window, and how much it may emit, in mel frames.

    left: frames before the first one emitted. held: newest frames that wait for what follows them; they are the
    stream's delay (20 ms each). sizes: a window emits up to the last of these and is filled up to the next of them;
    the defaults fit a first hop of 15 tokens, chunks of 50 frames and what is left at the end of an utterance. Each
    size costs some 100 ms of a CPU once, before the first window of its shape; fewer sizes mean more filling.

    Delay against exactness, as the largest difference from the one-shot audio (samples up to 1, pushes of 1 to 50
    frames) with the demo checkpoint / with random weights, whose far context weighs more than that of speech:
    held 10: 2e-5 / 6e-3, held 14: 1e-6 / 3e-5, held 15: 1e-6 / 4e-6, held 16 and more: rounding, 1e-6 / 1e-6.
    The default is the shortest delay below 1e-5 with both; `exact` holds back all that can matter at all.
    """

    left: int = 15
    held: int = 15
    sizes: tuple[int, ...] = (15, 30, 50, 75, 100)

    def __post_init__(self) -> None:
        if self.left < F0Predictor.reach:
            raise ValueError(f"left must be at least {F0Predictor.reach}, the reach of the pitch, got {self.left}")
        if self.held <= F0Predictor.reach:
            raise ValueError(f"held must be more than {F0Predictor.reach}, the reach of the pitch, got {self.held}")
        if not self.sizes or self.sizes[0] < 1 or any(after <= before for before, after in pairwise(self.sizes)):
            raise ValueError(f"sizes must be growing numbers of at least 1, got {self.sizes}")
        if self.longest <= self.left or self.longest < self.held:
            least = max(self.left + 1, self.held)
            raise ValueError(f"sizes must go up to {least} at least, more than left and all of held, got {self.sizes}")

    @classmethod
    def exact(cls, vocoder: Vocoder) -> StreamWindow:
        """The context beyond which nothing has any influence, whatever the weights (official rates: 15 and 20)."""
        hop = vocoder.config.samples_per_frame
        mel_reach, source_reach = vocoder.generator.reach()
        # The last half frame of a source awaits one more pitch, which awaits the mel within its own reach.
        right = max(mel_reach, -(-(source_reach + hop // 2) // hop) + F0Predictor.reach)
        return cls(left=max(mel_reach, -(-source_reach // hop)), held=right)

    @property
    def longest(self) -> int:
        """Frames that one window emits at most."""
        return self.sizes[-1]

    @property
    def pitched(self) -> int:
        """How many of the held frames have their final source: the pitch of the next one must be final as well."""
        return self.held - F0Predictor.reach - 1

    def shape(self, emitted: int, *, first: bool) -> WindowShape:
        """That of a window which emits so many frames, at the beginning of its utterance or later in it."""
        size = next(size for size in self.sizes if size >= emitted)
        before = 0 if first else self.left
        return WindowShape(
            before + size + self.held, 0 if first else self.left + self.pitched, Span(before, before + size)
        )

    def shapes(self) -> list[WindowShape]:
        """All shapes that decode anything."""
        return [self.shape(size, first=first) for first in (True, False) for size in self.sizes]


@dataclass(frozen=True, slots=True)
class PreparedWindow:
    """Input of one step. W, its own length in frames, is at most shape.frames.

    mel: (mel_bins, W), a whole signal as far as the generator can tell. source: (shape.heard * samples_per_frame,);
    phase: (partials,) float64, cycles at the centre of the last frame heard. noise: ((W - shape.heard) *
    samples_per_frame,) on the host, one standard normal draw per further sample. keep: the frames to emit, within
    shape.keep. carry: the frames whose source the next window starts from; the phase is that at the centre of the
    last of them. An empty `carry` means that nothing follows, or that it starts from the beginning.
    """

    shape: WindowShape
    mel: Tensor
    source: Tensor
    phase: Tensor
    noise: Tensor
    keep: Span
    carry: Span


@dataclass(frozen=True, slots=True)
class VocodedWindow:
    """Output of one step.

    audio: (len(keep) * samples_per_frame,) on the host. source: (len(carry) * samples_per_frame,). phase: (partials,)
    float64, cycles at the centre of the last frame to carry. The last two stay on the device and in no batch's memory.
    """

    audio: Tensor
    source: Tensor
    phase: Tensor


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows of one shape as tensors on the device; B rows, behind the end of each there are zeros.

    mel: (B, mel_bins, frames). source: (B, heard * samples_per_frame). phase: (B, partials) float64. noise: (B,
    (frames - heard) * samples_per_frame). lengths: (B,) int64, frames of each row, none less than `least`.
    """

    shape: WindowShape
    least: int
    mel: Tensor
    source: Tensor
    phase: Tensor
    noise: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, vocoder: Vocoder, windows: Sequence[PreparedWindow]) -> WindowBatch:
        """Windows of one shape, each filled up to it."""
        shape, config = windows[0].shape, vocoder.config
        lengths = [window.mel.shape[1] for window in windows]
        mel = windows[0].mel.new_zeros(len(windows), config.mel_bins, shape.frames)
        noise = torch.zeros(len(windows), (shape.frames - shape.heard) * config.samples_per_frame)
        for row, window in enumerate(windows):
            mel[row, :, : lengths[row]] = window.mel
            noise[row, : window.noise.shape[0]] = window.noise
        return cls(
            shape=shape,
            least=min(lengths),
            mel=mel,
            source=torch.stack([window.source for window in windows]),
            phase=torch.stack([window.phase for window in windows]),
            noise=noise.to(mel.device),
            lengths=torch.tensor(lengths, device=mel.device),
        )

    @classmethod
    def blank(cls, vocoder: Vocoder, shape: WindowShape, rows: int) -> WindowBatch:
        """Silence, prepared for rows of any length."""
        config, device = vocoder.config, vocoder.device
        hop = config.samples_per_frame
        return cls(
            shape=shape,
            least=0,
            mel=torch.zeros(rows, config.mel_bins, shape.frames, device=device),
            source=torch.zeros(rows, shape.heard * hop, device=device),
            phase=torch.zeros(rows, config.partials, dtype=torch.float64, device=device),
            noise=torch.zeros(rows, (shape.frames - shape.heard) * hop, device=device),
            lengths=torch.full((rows,), shape.frames, device=device),
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.mel, self.source, self.phase, self.noise, self.lengths

    @torch.no_grad()
    def vocode(self, vocoder: Vocoder) -> tuple[Tensor, Tensor, Tensor]:
        """Audio (B, len(keep) * samples_per_frame), source (B, frames * samples_per_frame), phases (B, n, partials).

        Phases are those at the centres of the n frames that were not heard before. Nothing here waits for the device.
        """
        shape, hop = self.shape, vocoder.config.samples_per_frame
        extent = Extent(shape.frames, self.least, self.lengths)
        first = max(shape.heard - vocoder.f0_predictor.reach, 0)
        f0 = vocoder.f0_predictor(self.mel[:, :, first:], extent.without(first))[:, shape.heard - first :]
        fresh, phases = vocoder.m_source(f0, vocoder.m_source.scale(self.noise), self.phase if shape.heard else None)
        source = torch.cat([self.source, fresh], 1)
        extent.scaled(hop).clear(source.unsqueeze(1), Span(0, source.shape[1]))
        if not len(shape.keep):
            return source.new_zeros(len(source), 0), source, phases
        audio: Tensor = vocoder.generator(self.mel, source, shape.keep, extent)
        return audio, source, phases


def vocode_windows(vocoder: Vocoder, windows: Sequence[PreparedWindow]) -> list[VocodedWindow]:
    """Run windows, those of equal shape as one batch; the results are in the order of the windows."""
    by_shape: dict[WindowShape, list[int]] = {}
    for index, window in enumerate(windows):
        by_shape.setdefault(window.shape, []).append(index)
    results: dict[int, VocodedWindow] = {}
    for indices in by_shape.values():
        alike = [windows[index] for index in indices]
        results.update(zip(indices, unpack(alike, *WindowBatch.of(vocoder, alike).vocode(vocoder)), strict=True))
    return [results[index] for index in range(len(windows))]


def unpack(windows: Sequence[PreparedWindow], audio: Tensor, source: Tensor, phases: Tensor) -> list[VocodedWindow]:
    """What `WindowBatch.vocode` made of these windows, one by one; audio reaches the host in one transfer."""
    shape = windows[0].shape
    hop = source.shape[1] // shape.frames
    audio = audio.cpu()
    results = []
    for row, window in enumerate(windows):
        keep, carry = window.keep, window.carry
        begin = (keep.start - shape.keep.start) * hop
        results.append(
            VocodedWindow(
                audio=audio[row, begin : begin + len(keep) * hop],
                # Copied, because a view would keep the source of the whole batch in memory.
                source=source[row, carry.start * hop : carry.stop * hop].clone(),
                phase=phases[row, max(carry.stop - shape.heard, 1) - 1].clone(),
            )
        )
    return results
