"""Spectral features of 16 and 24 kHz waveforms: log-mel of the speech tokenizer, filter bank of the speaker
encoder, mel of the flow decoder. Knows no files and no models.

Waveforms are (N,) float32 of full scale 1. Source: docs/model.md, "Prompt features".
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

FloatArray = npt.NDArray[np.float32]

TOKENIZER_RATE = 16000
MEL_RATE = 24000

_LOG_MEL_BINS, _LOG_MEL_FFT, _LOG_MEL_HOP = 128, 400, 160
_FBANK_BINS, _FBANK_FRAME, _FBANK_HOP, _FBANK_FFT = 80, 400, 160, 512
_FBANK_LOW_HZ, _FBANK_PREEMPHASIS, _FBANK_FLOOR = 20.0, 0.97, 1.1920929e-7
_MEL_BINS, _MEL_FFT, _MEL_HOP, _MEL_TOP_HZ = 80, 1920, 480, 8000.0


def whisper_log_mel(wave: FloatArray) -> FloatArray:
    """Log-mel spectrogram of a 16 kHz waveform for the speech tokenizer: (N,) to (128, N // 160), 100 frames/s.

    Needs more than 200 samples (half a frame is mirrored at each end).
    """
    samples = _tensor(wave, minimum=_LOG_MEL_FFT // 2 + 1)
    window = torch.hann_window(_LOG_MEL_FFT)
    spectrum = torch.stft(samples, _LOG_MEL_FFT, _LOG_MEL_HOP, window=window, return_complex=True)
    power = spectrum[:, :-1].abs().square()
    mel = _slaney_filters(TOKENIZER_RATE, _LOG_MEL_FFT, _LOG_MEL_BINS, TOKENIZER_RATE / 2) @ power
    log_mel = mel.clamp(min=1e-10).log10()
    log_mel = log_mel.clamp(min=float(log_mel.max()) - 8.0)
    return _array((log_mel + 4.0) / 4.0)


def kaldi_fbank(wave: FloatArray) -> FloatArray:
    """Log filter bank of a 16 kHz waveform: (N,) to (1 + (N - 400) // 160, 80). Needs at least 400 samples.

    Frames of 25 ms every 10 ms: mean removed, pre-emphasised, under a Hann window to the power 0.85.
    """
    samples = _tensor(wave, minimum=_FBANK_FRAME)
    frames = samples.unfold(0, _FBANK_FRAME, _FBANK_HOP)
    frames = frames - frames.mean(dim=1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    frames = frames - _FBANK_PREEMPHASIS * before
    window = torch.hann_window(_FBANK_FRAME, periodic=False).pow(0.85)
    power = torch.fft.rfft(frames * window, n=_FBANK_FFT).abs().square()
    energies = power @ _kaldi_filters().T
    return _array(energies.clamp(min=_FBANK_FLOOR).log())


def speaker_fbank(wave: FloatArray) -> FloatArray:
    """`kaldi_fbank` with the mean over time taken off each bin, as the speaker encoder wants it: (T, 80)."""
    fbank = kaldi_fbank(wave)
    return np.asarray(fbank - fbank.mean(axis=0, keepdims=True), np.float32)


def prompt_mel(wave: FloatArray) -> FloatArray:
    """Natural-log mel of a 24 kHz waveform for the flow decoder: (N,) to (N // 480, 80), 50 frames/s.

    Needs more than 720 samples (they are mirrored at each end, so that frames sit on their hops).
    """
    samples = _tensor(wave, minimum=(_MEL_FFT - _MEL_HOP) // 2 + 1)
    return _array(mel_of(samples[None])[0])


def mel_of(samples: Tensor) -> Tensor:
    """`prompt_mel` of a batch, with gradients and on any device: (B, N) at 24 kHz to (B, N // 480, 80)."""
    margin = (_MEL_FFT - _MEL_HOP) // 2
    padded = F.pad(samples[None], (margin, margin), mode="reflect")[0]
    window = torch.hann_window(_MEL_FFT, device=samples.device)
    spectrum = torch.stft(padded, _MEL_FFT, _MEL_HOP, window=window, center=False, return_complex=True)
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
    mel = _slaney_filters(MEL_RATE, _MEL_FFT, _MEL_BINS, _MEL_TOP_HZ).to(samples.device) @ magnitude
    return mel.clamp(min=1e-5).log().transpose(1, 2)


def _tensor(wave: FloatArray, minimum: int) -> Tensor:
    if wave.ndim != 1 or len(wave) < minimum:
        raise ValueError(f"need a waveform (N,) of at least {minimum} samples, got shape {wave.shape}")
    return torch.from_numpy(np.ascontiguousarray(wave, np.float32))


def _array(values: Tensor) -> FloatArray:
    return np.ascontiguousarray(values.numpy(), np.float32)


@cache
def _slaney_filters(rate: int, n_fft: int, bins: int, top_hz: float) -> Tensor:
    """(bins, n_fft // 2 + 1) triangles, evenly spaced on Slaney's mel scale from 0 Hz, each of unit area in Hz.

    The scale is linear to 1 kHz (15 mels) and logarithmic above, 27 mels per factor 6.4.
    """
    breaking_hz, breaking_mel, hz_per_mel, log_step = 1000.0, 15.0, 200.0 / 3.0, np.log(6.4) / 27.0
    top = top_hz / hz_per_mel if top_hz < breaking_hz else breaking_mel + np.log(top_hz / breaking_hz) / log_step
    mels = np.linspace(0.0, top, bins + 2)
    corners = np.where(mels < breaking_mel, mels * hz_per_mel, breaking_hz * np.exp(log_step * (mels - breaking_mel)))
    frequencies = np.linspace(0.0, rate / 2, n_fft // 2 + 1)
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (high - low))
    return torch.from_numpy(triangles.astype(np.float32))


@cache
def _kaldi_filters() -> Tensor:
    """(80, 257) triangles of height 1, evenly spaced and straight-sided on mel = 1127 ln(1 + f / 700)."""
    frequencies = np.arange(_FBANK_FFT // 2 + 1) * (TOKENIZER_RATE / _FBANK_FFT)
    mel = 1127.0 * np.log1p(frequencies / 700.0)
    low, high = 1127.0 * np.log1p(np.array([_FBANK_LOW_HZ, TOKENIZER_RATE / 2]) / 700.0)
    step = (high - low) / (_FBANK_BINS + 1)
    left = low + step * np.arange(_FBANK_BINS)[:, None]
    triangles = np.maximum(0.0, np.minimum((mel - left) / step, (left + 2 * step - mel) / step))
    return torch.from_numpy(triangles.astype(np.float32))
