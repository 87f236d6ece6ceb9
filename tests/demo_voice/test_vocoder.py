"""The vocoder with gradients is the vocoder that serves; its losses and its discriminators."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cosyvoice_core.audio.features import mel_of, prompt_mel
from cosyvoice_core.checkpoint.layout import vocoder_layout
from cosyvoice_core.config import VocoderConfig
from cosyvoice_core.vocoder import Span, Vocoder
from tools.demo_voice.pack import hift_state
from tools.demo_voice.trainer import Part
from tools.demo_voice.vocoder.adversary import Adversary, adversary_loss, fooling_losses
from tools.demo_voice.vocoder.loss import mel_distance, pitch_distance, spectra_distance
from tools.demo_voice.vocoder.network import generate, vocode
from tools.demo_voice.vocoder.train import vocoder_state

CONFIG = VocoderConfig(base_channels=32, f0_channels=16)


def _vocoder() -> Vocoder:
    torch.manual_seed(0)
    vocoder = Vocoder(CONFIG)
    for parameter in vocoder.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return vocoder


@pytest.mark.parametrize("frames", [3, 20])
def test_training_and_serving_give_the_same_sound(frames: int) -> None:
    vocoder = _vocoder()
    mel, source = torch.randn(2, 80, frames) - 4, 0.1 * torch.randn(2, 480 * frames)
    with torch.no_grad():
        served = vocoder.generator(mel, source, Span(0, frames))
        assert (generate(vocoder.generator, mel, source) - served).abs().max() < 1e-5
    assert served.std() > 1e-3


def test_gradients_reach_every_tensor() -> None:
    vocoder = _vocoder().requires_grad_(True)
    mel, pitch = torch.randn(1, 80, 8) - 4, torch.full((1, 8), 120.0)
    loss = vocode(vocoder, mel, pitch).square().mean() + vocoder.f0_predictor(mel).square().mean()
    loss.backward()
    assert [name for name, each in vocoder.named_parameters() if each.grad is None or not each.grad.any()] == []


def test_the_loss_falls() -> None:
    vocoder = _vocoder().requires_grad_(True)
    part = Part.adamw(vocoder, 3e-3)
    time = torch.arange(480 * 16) / 24000
    wave = 0.2 * torch.sin(2 * torch.pi * 150 * time)[None]
    mel, pitch = mel_of(wave).transpose(1, 2), torch.full((1, 16), 150.0)
    losses = []
    for _ in range(12):
        torch.manual_seed(0)
        speech = vocode(vocoder, mel, pitch)
        loss = spectra_distance(speech, wave) + mel_distance(speech, wave)
        losses.append(float(loss.detach()))
        part.descend(loss, 3.0)
    assert losses[-1] < 0.9 * losses[0]


def test_distances_are_zero_for_the_same_and_grow() -> None:
    torch.manual_seed(0)
    wave = 0.1 * torch.randn(2, 9600)
    near, far = wave + 0.01 * torch.randn_like(wave), 0.1 * torch.randn(2, 9600)
    for distance in (spectra_distance, mel_distance):
        assert distance(wave, wave) == 0
        assert 0 < distance(near, wave) < distance(far, wave)
    assert pitch_distance(torch.tensor([200.0]), torch.tensor([100.0])) == 2.0


def test_mel_of_a_batch_is_the_mel_of_prompts() -> None:
    wave = np.random.default_rng(0).standard_normal(4800).astype(np.float32)
    batch = mel_of(torch.from_numpy(np.stack([wave, wave * 0.5])))
    assert np.allclose(batch[0].numpy(), prompt_mel(wave), atol=1e-5)
    assert np.allclose(batch[1].numpy(), prompt_mel(wave * 0.5), atol=1e-4)


def test_a_discriminator_learns_to_tell_and_the_vocoder_hears_of_it() -> None:
    torch.manual_seed(0)
    adversary = Adversary(width=4)
    part = Part.adamw(adversary, 3e-3)
    real, made = 0.3 * torch.sin(torch.arange(4800) / 20)[None], 0.1 * torch.randn(1, 4800)
    first = float(adversary_loss(adversary, made, real).detach())
    for _ in range(15):
        loss = adversary_loss(adversary, made, real)
        part.descend(loss, 3.0)
    assert float(loss.detach()) < 0.8 * first
    made.requires_grad_(True)
    scores, features = fooling_losses(adversary, made, real)
    (scores + features).backward()
    assert made.grad is not None
    assert made.grad.any()


def test_the_packed_file_folds_back_to_the_weights() -> None:
    vocoder = _vocoder()
    packed = hift_state(vocoder_state(vocoder), CONFIG)
    assert {key: tuple(value.shape) for key, value in packed.items()} == vocoder_layout(CONFIG)
    again = Vocoder.from_state(packed, CONFIG, "hift.pt")
    mel, source = torch.randn(1, 80, 6) - 4, 0.1 * torch.randn(1, 1, 480 * 6)
    assert (again.decode(mel, source) - vocoder.decode(mel, source)).abs().max() < 1e-5
    assert torch.allclose(again.f0(mel), vocoder.f0(mel), atol=1e-3)
