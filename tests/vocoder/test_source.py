"""Pitch, noise and phase do not depend on how an utterance is cut."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator, Philox
from torch import Tensor

from cosyvoice_core.vocoder import SourceNoise, Vocoder
from cosyvoice_core.vocoder.f0 import F0Predictor

HOP = 480
PARTIALS = 9


def pitch(frames: int) -> Tensor:
    """(1, frames) float64: a glide, a pause, very high notes."""
    time = torch.arange(frames, dtype=torch.float64)
    f0 = 150 + 80 * torch.sin(time / 7)
    f0[frames // 3 : frames // 2] = 3.0
    f0[-frames // 5 :] = 2900.0
    return f0[None]


def noise(vocoder: Vocoder, frames: int) -> Tensor:
    return vocoder.m_source.scale(SourceNoise(1).mixed(0, frames))[None]


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, 59), max_size=4, unique=True))
def test_phase_carried_over_any_cut_gives_the_same_source(tiny: Vocoder, cuts: list[int]) -> None:
    f0, drawn = pitch(60), noise(tiny, 60)
    whole, phases = tiny.m_source(f0, drawn)
    bounds = [0, *sorted(cuts), 60]
    carried: Tensor | None = None
    for start, stop in pairwise(bounds):
        # One frame more than is kept: the last half frame of a stretch awaits the pitch that follows.
        seen = min(stop + 1, 60)
        part, centres = tiny.m_source(f0[:, start:seen], drawn[:, HOP * start : HOP * seen], carried)
        assert torch.allclose(part[:, : HOP * (stop - start)], whole[:, HOP * start : HOP * stop], atol=1e-6, rtol=0)
        carried = centres[:, stop - start - 1]
        assert circular(carried - phases[:, stop - 1]) < 1e-9


def circular(cycles: Tensor) -> float:
    return (cycles - cycles.round()).abs().max().item()


def test_source_follows_its_formula(tiny: Vocoder) -> None:
    f0, drawn, config = pitch(20), noise(tiny, 20), tiny.config
    source, _ = tiny.m_source(f0, drawn)
    weight, bias = tiny.m_source.l_linear.weight[0].double(), tiny.m_source.l_linear.bias[0].double()
    for sample in (0, 100, 239, 240, 700, 3000, 5555, HOP * 20 - 241, HOP * 20 - 1):
        position = min(max((sample + 0.5) / HOP - 0.5, 0), 19)
        before, share = int(position), position - int(position)
        total = bias
        frame = sample // HOP
        voiced = f0[0, frame] > config.voiced_threshold_hz
        for index in range(PARTIALS):
            advance = ((f0[0] * (index + 1) / config.sample_rate) % 1.0) * HOP
            cycles = advance[: before + 1].sum() + (share * advance[before + 1] if share else 0)
            total = total + weight[index] * (config.sine_amplitude * torch.sin(2 * math.pi * cycles) if voiced else 0)
        amplitude = config.noise_sigma if voiced else config.sine_amplitude / 3
        assert source[0, sample].item() == pytest.approx(
            torch.tanh(total + amplitude * drawn[0, sample]).item(), abs=2e-6
        )


def test_reference_arithmetic_agrees_while_utterances_are_short(tiny: Vocoder) -> None:
    f0 = pitch(25)
    partials = torch.randn(1, HOP * 25, PARTIALS, generator=torch.Generator().manual_seed(0))
    ours, _ = tiny.m_source(f0, tiny.m_source.mix(partials))
    assert torch.allclose(ours, tiny.m_source.reference(f0.float(), partials), atol=5e-3, rtol=0)


def test_phase_stays_exact_over_an_hour(tiny: Vocoder) -> None:
    frames = 50 * 3600
    f0 = torch.full((1, 50), 123.456, dtype=torch.float64)
    advance = (f0[0, 0] * torch.arange(1, PARTIALS + 1) / tiny.config.sample_rate % 1.0) * HOP
    carried: Tensor | None = None
    silent = torch.zeros(1, HOP * 50)
    for _ in range(frames // 50):
        _, centres = tiny.m_source(f0, silent, carried)
        carried = centres[:, -1]
    assert carried is not None
    assert circular(carried[0] - advance * frames) < 1e-6


@settings(max_examples=30)
@given(start=st.integers(0, 500), count=st.integers(0, 30), seed=st.integers(0, 2**64 - 1))
def test_noise_is_a_function_of_position(start: int, count: int, seed: int) -> None:
    noise = SourceNoise(seed)
    ahead = min(start, 5)
    longer = noise.mixed(start - ahead, count + ahead)
    assert noise.mixed(start, count).shape == (HOP * count,)
    assert torch.equal(noise.mixed(start, count), longer[HOP * ahead :])
    partials = noise.partials(start - ahead, count + ahead)
    assert partials.shape == (HOP * (count + ahead), PARTIALS)
    assert torch.equal(noise.partials(start, count), partials[HOP * ahead :])


def test_every_frame_has_a_generator_of_its_own() -> None:
    drawn = SourceNoise(9).mixed(3, 4).view(4, HOP)
    for row, frame in zip(drawn, range(3, 7), strict=True):
        generator = Generator(Philox(key=9 << 64 | frame))
        assert torch.equal(row, torch.from_numpy(generator.standard_normal(HOP, np.float32)))


def test_noise_is_standard_normal_and_fresh_in_every_frame() -> None:
    drawn = SourceNoise(3).mixed(0, 400).view(400, HOP)
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert abs((drawn**4).mean() - 3) < 0.1
    assert len(drawn[:, 0].unique()) == 400
    other = SourceNoise(4).mixed(0, 400).view(400, HOP)
    for pair in ((drawn[:-1], drawn[1:]), (drawn, other)):
        assert abs((pair[0] * pair[1]).mean()) < 0.01


def test_one_scaled_draw_is_distributed_like_the_mix_of_all_partials(tiny: Vocoder) -> None:
    mixed = tiny.m_source.mix(SourceNoise(1).partials(0, 300))
    scaled = tiny.m_source.scale(SourceNoise(1).mixed(0, 300))
    assert mixed.shape == scaled.shape
    assert mixed.std().item() == pytest.approx(scaled.std().item(), rel=0.02)


def test_pitch_depends_on_its_reach_and_no_further(tiny: Vocoder) -> None:
    mel = torch.randn(1, 80, 41, generator=torch.Generator().manual_seed(0))
    before = tiny.f0_predictor(mel)[0, 20]
    for distance in (F0Predictor.reach, F0Predictor.reach + 1):
        for frame in (20 - distance, 20 + distance):
            changed = mel.clone()
            changed[:, :, frame] += 1
            assert (tiny.f0_predictor(changed)[0, 20] == before) == (distance > F0Predictor.reach)


def test_pitch_of_a_window_is_that_of_the_whole_far_below_float32(tiny: Vocoder) -> None:
    mel = torch.randn(1, 80, 60, generator=torch.Generator().manual_seed(1))
    whole = tiny.f0_predictor(mel)
    part = tiny.f0_predictor(mel[:, :, 13:47])
    reach = F0Predictor.reach
    assert (part[:, reach:-reach] - whole[:, 13 + reach : 47 - reach]).abs().max() < 1e-10
