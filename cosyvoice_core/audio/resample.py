"""Change of sample rate by a windowed sinc, for any pair of rates in bounded memory.

Output sample n lies at input time n * old / new; its value is the sum of the input samples around that time,
weighted by a sinc under a squared cosine. Knows no files. Source: docs/model.md, "Prompt features".
"""

from __future__ import annotations

from math import ceil, gcd, isqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

FloatArray = npt.NDArray[np.float32]

LOWPASS_WIDTH = 6
"""Zero crossings of the sinc on each side."""
ROLLOFF = 0.99
"""Cut-off as a share of the lower Nyquist frequency."""
_KERNEL_ENTRIES = 1 << 20


def resample(samples: FloatArray, rate: int, new_rate: int) -> FloatArray:
    """(N,) at `rate` Hz to (ceil(N * new_rate / rate),) at `new_rate` Hz.

    With both rates divided by their gcd, output samples repeat their places between input samples every `new`
    samples: a convolution of stride `old` with one channel per place. Common rates take one convolution; for odd
    ones (44101 Hz would need 16000 channels of 44137 taps) groups of channels are built and dropped in turn.
    """
    if rate <= 0 or new_rate <= 0:
        raise ValueError(f"rates must be positive, got {rate} and {new_rate}")
    if rate == new_rate or len(samples) == 0:
        return samples
    shared = gcd(rate, new_rate)
    old, new = rate // shared, new_rate // shared
    width = ceil(LOWPASS_WIDTH * old / (min(old, new) * ROLLOFF))
    taps = 2 * width + old
    group = new if new * taps <= _KERNEL_ENTRIES else max(1, min(new, isqrt(_KERNEL_ENTRIES * new // old)))

    padded = F.pad(torch.from_numpy(np.ascontiguousarray(samples, np.float32)), (width, width + old))[None, None]
    periods = len(samples) // old + 1
    out = torch.empty(periods, new)
    for first in range(0, new, group):
        last = min(first + group, new) - 1
        # Beyond these taps the channels of the group weigh nothing.
        low, high = (0, taps) if group == new else (first * old // new, last * old // new + 2 * width + 2)
        kernel = _kernel(old, new, width, first, last, low, min(high, taps))
        out[:, first : last + 1] = F.conv1d(padded[:, :, low:], kernel, stride=old)[0, :, :periods].T
    count = -(-len(samples) * new // old)
    return np.ascontiguousarray(out.view(-1)[:count].numpy())


def _kernel(old: int, new: int, width: int, first: int, last: int, low: int, high: int) -> Tensor:
    """(last - first + 1, 1, high - low): weights of input samples `low - width`.. for output samples `first`.."""
    cutoff = min(old, new) * ROLLOFF
    # The original divides here in single precision. The error is inaudible, but log features of nearly empty
    # bands, and so speech tokens, show it: following it keeps prompts equal to those of the original.
    place = torch.arange(-first, -last - 1, -1) / new
    seconds = place[:, None, None] + torch.arange(low - width, high - width, dtype=torch.float64) / old
    crossings = (seconds * cutoff).clamp_(-LOWPASS_WIDTH, LOWPASS_WIDTH)
    window = torch.cos(crossings * torch.pi / LOWPASS_WIDTH / 2) ** 2
    return (torch.sinc(crossings) * window * (cutoff / old)).to(torch.float32)
