"""Vocoder of one utterance whose mel arrives in pieces: no cross-fade, phase carried, constant cost per second.

Holds the state of an utterance and cuts it into windows, which `window.py` computes. Knows nothing of other
utterances, of deadlines or of threads. Source: docs/model.md, "Exact incremental computation".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.vocoder.noise import SourceNoise
from cosyvoice_core.vocoder.section import Span
from cosyvoice_core.vocoder.vocoder import Vocoder
from cosyvoice_core.vocoder.window import PreparedWindow, StreamWindow, VocodedWindow, WindowShape, vocode_windows


@dataclass(frozen=True, slots=True)
class _Plan:
    """The next window in frames of the utterance: it begins at `start`, knows all up to `known`, emits up to `stop`."""

    shape: WindowShape
    start: int
    known: int
    stop: int
    whole: bool


class VocoderStream:
    """Turns mel pushed in any pieces into the audio that `Vocoder.vocode` makes of all of it with the same seed.

    What is kept between windows is final. Mel frames never change once pushed. The pitch of a frame depends on
    five frames to either side, so that it is final five frames before the newest one; the source of a frame needs
    the pitch of the next one as well, because phase runs from centre to centre; so all but the newest six frames
    have their final source, and the phase at the last of their centres is the only thing of the past that later
    source depends on. Speech depends on mel and source within the generator's reach (`HiFTGenerator.reach`, less
    than 15 frames): a window that holds as much on the left computes the same sums as the whole utterance. The
    newest frames are held back until their right context has come, or nearly all of it (`StreamWindow.held`).
    As long as less has been emitted than a window's left context, windows start from the beginning again.

    A scheduler drives many streams by `feed`, `shape`, `window`, `vocode_windows` and `emit`; `push` does it for one.

    Resuming: the audio is a function of seed and mel alone. A new stream that is pushed the same mel from the
    beginning with `skip_samples` set to what was already sent gives the remaining samples; of windows that lie
    within the skipped part only pitch and source are computed, a small part of the work. The samples are the same
    bit by bit when the pushes are the same, and otherwise as equal as any two chunkings are.
    """

    def __init__(
        self, vocoder: Vocoder, seed: int, window: StreamWindow | None = None, *, skip_samples: int = 0
    ) -> None:
        """Raise InputError for a seed or a number of samples that is out of range."""
        if skip_samples < 0:
            raise InputError("skip_samples", f"{skip_samples} is negative", "0 or more")
        config, device = vocoder.config, vocoder.device
        self._vocoder = vocoder
        self._window = window or StreamWindow()
        self._noise = SourceNoise(seed, config.samples_per_frame)
        self._skip = skip_samples
        self._mel = torch.zeros(config.mel_bins, 0, device=device)
        self._waiting: list[Tensor] = []
        self._source = torch.zeros(0, device=device)
        self._phase = torch.zeros(config.partials, dtype=torch.float64, device=device)
        # Counted in frames from the start of the utterance; what is kept begins at `start`.
        self._start = self._emitted = self._arrived = 0
        self._complete = False
        self._computing: _Plan | None = None

    @property
    def done(self) -> bool:
        """Whether the last frame has come and all audio has been emitted."""
        return self._complete and self._emitted == self._arrived

    def push(self, mel: Tensor, last: bool) -> Tensor:
        """Mel (mel_bins, T), T from 0 on, to the audio (samples,), on the vocoder's device, that it completes.

        After the `last` push all pushes together have given samples_per_frame samples per frame, less those to skip.
        Raises InputError for mel of another shape or after the last push, EngineError when audio is not finite.
        """
        self.feed(mel, last)
        pieces: list[Tensor] = []
        while (window := self.window()) is not None:
            pieces += [self.emit(result) for result in vocode_windows(self._vocoder, [window])]
        audio = torch.cat(pieces) if pieces else torch.zeros(0)
        return audio.to(self._phase.device)

    def feed(self, mel: Tensor, last: bool) -> None:
        """Take mel (mel_bins, T) in without computing anything; allowed while a window is being computed.

        Raises InputError for mel of another shape or after the last push.
        """
        if self._complete:
            raise InputError("mel", "came after the last piece of its utterance", "one last piece")
        if mel.dim() != 2 or mel.shape[0] != self._mel.shape[0]:
            raise InputError("mel", f"shape {tuple(mel.shape)}", f"({self._mel.shape[0]}, frames)")
        self._complete = last
        if mel.shape[1]:
            self._waiting.append(mel.to(self._mel))
            self._arrived += mel.shape[1]

    @property
    def shape(self) -> WindowShape | None:
        """That of the next window, None until more mel comes.

        Raises RuntimeError when the window before has not been emitted.
        """
        plan = self._plan()
        return None if plan is None else plan.shape

    def window(self) -> PreparedWindow | None:
        """The next window to compute, None until more mel comes. Each window must be emitted before the next.

        Raises RuntimeError when the one before has not been emitted.
        """
        plan = self._plan()
        if plan is None:
            return None
        if self._waiting:
            self._mel = torch.cat([self._mel, *self._waiting], 1)
            self._waiting.clear()
        start, shape = plan.start, plan.shape
        heard, next_start = start + shape.heard, plan.stop - self._window.left
        window = PreparedWindow(
            shape=shape,
            mel=self._mel[:, : plan.known - start],
            source=self._source,
            phase=self._phase,
            noise=self._noise.mixed(heard, plan.known - heard),
            keep=Span(self._emitted - start, plan.stop - start) if len(shape.keep) else Span(0, 0),
            carry=Span(next_start - start, plan.stop + self._window.pitched - start)
            if next_start >= 0 and not plan.whole
            else Span(0, 0),
        )
        self._computing = plan
        return window

    def emit(self, result: VocodedWindow) -> Tensor:
        """Take over what the current window computed and return its audio (samples,), on the host.

        Raises EngineError when the audio is not finite and RuntimeError when no window was asked for.
        """
        plan = self._computing
        if plan is None:
            raise RuntimeError("no window of this stream is being computed")
        if not bool(result.audio.isfinite().all()):
            raise EngineError(f"vocoder produced a value that is not finite in frames {self._emitted} to {plan.stop}")
        unwanted = max(self._skip - self._emitted * self._noise.samples_per_frame, 0)
        start = max(plan.stop - self._window.left, 0)
        self._mel = self._mel[:, start - plan.start :]
        self._source, self._phase = result.source, result.phase
        self._start, self._emitted, self._computing = start, plan.stop, None
        return result.audio[unwanted:]

    def _plan(self) -> _Plan | None:
        if self._computing is not None:
            raise RuntimeError("a window of this stream is still being computed")
        # A window that starts at the beginning decodes what was emitted already once more.
        window = self._window
        first = self._emitted < window.left
        base = 0 if first else self._emitted
        known = min(self._arrived, base + window.longest + window.held)
        whole = self._complete and known == self._arrived and known <= base + window.longest
        stop = known if whole else known - window.held
        if stop <= self._emitted:
            return None
        shape = window.shape(stop - base, first=first)
        if stop * self._noise.samples_per_frame <= self._skip:
            shape = replace(shape, keep=Span(0, 0))
        return _Plan(shape, self._start, known, stop, whole)
