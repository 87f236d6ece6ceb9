"""Windows of utterances: what one step of a vocoder stream computes, apart from the stream's state.

A window is self-contained and windows of equal shape run as one batch, whatever utterances they belong to. Knows
nothing of when windows come or where their audio goes. Source: docs/model.md, "Exact incremental computation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosyvoice_core.vocoder.f0 import F0Predictor
from cosyvoice_core.vocoder.section import Span
from cosyvoice_core.vocoder.vocoder import Vocoder


@dataclass(frozen=True, slots=True)
class StreamWindow:
    """Context of a window, in mel frames.

    left: frames before the first one emitted. held: newest frames that wait for what follows them; they are the
    stream's delay (20 ms each). longest: frames one window emits at most, which bounds its memory.

    Delay against exactness, as the largest difference from the one-shot audio (samples up to 1, pushes of 1 to 50
    frames) with the demo checkpoint / with random weights, whose far context weighs more than that of speech:
    held 10: 2e-5 / 6e-3, held 14: 1e-6 / 3e-5, held 15: 1e-6 / 4e-6, held 16 and more: rounding, 1e-6 / 1e-6.
    The default is the shortest delay below 1e-5 with both; `exact` holds back all that can matter at all.
    """

    left: int = 15
    held: int = 15
    longest: int = 200

    def __post_init__(self) -> None:
        if self.left < F0Predictor.reach:
            raise ValueError(f"left must be at least {F0Predictor.reach}, the reach of the pitch, got {self.left}")
        if self.held <= F0Predictor.reach:
            raise ValueError(f"held must be more than {F0Predictor.reach}, the reach of the pitch, got {self.held}")
        if self.longest < 1:
            raise ValueError(f"longest must be at least 1, got {self.longest}")

    @classmethod
    def exact(cls, vocoder: Vocoder, longest: int = 200) -> StreamWindow:
        """The context beyond which nothing has any influence, whatever the weights (official rates: 15 and 20)."""
        hop = vocoder.config.samples_per_frame
        mel_reach, source_reach = vocoder.generator.reach()
        # The last half frame of a source awaits one more pitch, which awaits the mel within its own reach.
        right = max(mel_reach, -(-(source_reach + hop // 2) // hop) + F0Predictor.reach)
        return cls(left=max(mel_reach, -(-source_reach // hop)), held=right, longest=longest)


@dataclass(frozen=True, slots=True)
class WindowShape:
    """What windows must share to run in one batch."""

    frames: int
    heard: int
    final: int
    keep: Span


@dataclass(frozen=True, slots=True)
class PreparedWindow:
    """Input of one step.

    mel: (mel_bins, W), a whole signal as far as the generator can tell. heard: how many of its frames have their
    final source already; source: (heard * samples_per_frame,), that source; phase: (partials,) float64, cycles at
    the centre of the last of them. noise: ((W - heard) * samples_per_frame,), one standard normal draw per further
    sample. final: how many frames have their final source after this window, more than `heard`. keep: the frames
    to emit; an empty span computes source and phase and decodes nothing.
    """

    mel: Tensor
    heard: int
    source: Tensor
    phase: Tensor
    noise: Tensor
    final: int
    keep: Span

    @property
    def shape(self) -> WindowShape:
        return WindowShape(self.mel.shape[-1], self.heard, self.final, self.keep)


@dataclass(frozen=True, slots=True)
class VocodedWindow:
    """Output of one step.

    audio: (len(keep) * samples_per_frame,). source: (W * samples_per_frame,), final up to frame `final`.
    phase: (partials,) float64, cycles at the centre of frame `final` - 1.
    """

    audio: Tensor
    source: Tensor
    phase: Tensor


def vocode_windows(vocoder: Vocoder, windows: Sequence[PreparedWindow]) -> list[VocodedWindow]:
    """Run windows, those of equal shape as one batch; the results are in the order of the windows."""
    by_shape: dict[WindowShape, list[int]] = {}
    for index, window in enumerate(windows):
        by_shape.setdefault(window.shape, []).append(index)
    results: dict[int, VocodedWindow] = {}
    for shape, indices in by_shape.items():
        results.update(zip(indices, _run(vocoder, shape, [windows[index] for index in indices]), strict=True))
    return [results[index] for index in range(len(windows))]


@torch.no_grad()
def _run(vocoder: Vocoder, shape: WindowShape, windows: list[PreparedWindow]) -> list[VocodedWindow]:
    mel = torch.stack([window.mel for window in windows])
    noise = vocoder.m_source.scale(torch.stack([window.noise for window in windows]))
    carried = torch.stack([window.phase for window in windows]) if shape.heard else None
    first = max(shape.heard - vocoder.f0_predictor.reach, 0)
    f0 = vocoder.f0_predictor(mel[:, :, first:])[:, shape.heard - first :]
    fresh, phases = vocoder.m_source(f0, noise, carried)
    source = torch.cat([torch.stack([window.source for window in windows]), fresh], 1)
    phase = phases[:, shape.final - shape.heard - 1]
    audio = vocoder.decode(mel, source.unsqueeze(1), shape.keep)
    return [VocodedWindow(*row) for row in zip(audio, source, phase, strict=True)]
