"""Mel spectrogram to waveform: HiFT with its F0 predictor, whole or streamed. Source: docs/model.md, "Vocoder"."""

from cosyvoice_core.vocoder.noise import SourceNoise
from cosyvoice_core.vocoder.runner import WindowRunner, reserve_kernels
from cosyvoice_core.vocoder.section import Span
from cosyvoice_core.vocoder.speed import SpeedStream, reference_resize, resize_mel
from cosyvoice_core.vocoder.stream import VocoderStream
from cosyvoice_core.vocoder.vocoder import Vocoder
from cosyvoice_core.vocoder.window import (
    PreparedWindow,
    StreamWindow,
    VocodedWindow,
    WindowShape,
    vocode_windows,
)

__all__ = [
    "PreparedWindow",
    "SourceNoise",
    "Span",
    "SpeedStream",
    "StreamWindow",
    "VocodedWindow",
    "Vocoder",
    "VocoderStream",
    "WindowRunner",
    "WindowShape",
    "reference_resize",
    "reserve_kernels",
    "resize_mel",
    "vocode_windows",
]
