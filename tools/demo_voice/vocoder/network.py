"""The HiFT generator's computation with gradients, on the very modules that serve.

What serves computes sections in place, which saves memory passes and forbids gradients; a test holds the two to the
same sound. Knows whole signals only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.vocoder import Vocoder
from cosyvoice_core.vocoder.hift import HiFTGenerator
from cosyvoice_core.vocoder.residual import ResBlock, Snake
from cosyvoice_core.vocoder.section import Extent
from cosyvoice_core.vocoder.stage import Stage, down_padding

_FINAL_SLOPE, _MAX_MAGNITUDE = 0.01, 100.0


def vocode(vocoder: Vocoder, mel: Tensor, pitch: Tensor) -> Tensor:
    """Speech (B, 480 T) of mel (B, 80, T), with the pitch (B, T) in Hz given instead of predicted."""
    hop = vocoder.config.samples_per_frame
    noise = torch.randn(len(mel), mel.shape[2] * hop, device=mel.device)
    source, _ = vocoder.m_source(pitch.double(), vocoder.m_source.scale(noise))
    return generate(vocoder.generator, mel, source)


def generate(generator: HiFTGenerator, mel: Tensor, source: Tensor) -> Tensor:
    """Speech (B, N) of mel (B, 80, T) and source (B, N)."""
    config = generator.config
    spectrum = generator.spectrum(source, Extent.even(source.shape[1])).values
    x = _same(generator.conv_pre, mel)
    for stage in generator.stages:
        x = _stage(stage, x, spectrum)
    x = _same(generator.conv_post, F.leaky_relu(x, _FINAL_SLOPE))
    magnitude, angle = x.float().chunk(2, 1)
    magnitude, angle = magnitude.exp().clamp(max=_MAX_MAGNITUDE), angle.sin()
    window = torch.hann_window(config.istft_n_fft, device=x.device)
    speech = torch.istft(
        torch.complex(magnitude * angle.cos(), magnitude * angle.sin()),
        config.istft_n_fft,
        config.istft_hop,
        window=window,
        length=source.shape[1],
    )
    return speech.clamp(-config.audio_limit, config.audio_limit)


def _stage(stage: Stage, x: Tensor, spectrum: Tensor) -> Tensor:
    total = x.shape[2] * stage.rate
    up = stage.up(F.leaky_relu(x, stage.slope))[:, :, stage.padding : stage.padding + total]
    if stage.reflect:
        up = F.pad(up, (1, 0), mode="reflect")
    padding = down_padding(stage.source_down.stride[0])
    joined = up + _block(stage.source_block, stage.source_down(F.pad(spectrum, (padding, padding))))
    return torch.stack([_block(block, joined) for block in stage.blocks]).mean(0)


def _block(block: ResBlock, x: Tensor) -> Tensor:
    parts = (block.activations1, block.convs1, block.activations2, block.convs2)
    for snake1, dilated, snake2, plain in zip(*parts, strict=True):
        x = x + _same(plain, _snake(snake2, _same(dilated, _snake(snake1, x))))
    return x


def _snake(module: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(module, Snake)
    alpha = module.alpha[:, None]
    return x + (x * alpha).sin().square() / (alpha + 1e-9)


def _same(module: nn.Module, x: Tensor) -> Tensor:
    """A convolution with as many zeros around its input as keep its length."""
    assert isinstance(module, nn.Conv1d)
    padding = module.kernel_size[0] // 2 * module.dilation[0]
    return F.conv1d(x, module.weight, module.bias, padding=padding, dilation=module.dilation)
