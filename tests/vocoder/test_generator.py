"""The generator computes any part of its output as the whole does, from no more input than its reach."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosyvoice_core.config import VocoderConfig
from cosyvoice_core.vocoder import Span, Vocoder
from cosyvoice_core.vocoder.hift import HiFTGenerator
from cosyvoice_core.vocoder.section import CentredConv, Extent, Section
from cosyvoice_core.vocoder.spectrum import Spectrum

HOP = 480


def inputs(frames: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(1, 80, frames, generator=generator), 0.1 * torch.randn(1, 1, HOP * frames, generator=generator)


@settings(max_examples=20)
@given(frames=st.integers(1, 45), edges=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_part_equals_the_same_part_of_the_whole(tiny: Vocoder, frames: int, edges: tuple[float, float]) -> None:
    start, stop = sorted(round(edge * frames) for edge in edges)
    mel, source = inputs(frames)
    part = tiny.decode(mel, source, Span(start, stop))
    whole = tiny.decode(mel, source)
    assert part.shape == (1, HOP * (stop - start))
    assert torch.allclose(part, whole[:, HOP * start : HOP * stop], atol=2e-6, rtol=0)


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 30), min_size=2, max_size=4), start=st.integers(0, 10))
def test_rows_of_unequal_length_sound_as_alone(tiny: Vocoder, lengths: list[int], start: int) -> None:
    longest = max(lengths)
    alone = [inputs(length) for length in lengths]
    mel, source = torch.zeros(len(lengths), 80, longest), torch.zeros(len(lengths), HOP * longest)
    for row, (row_mel, row_source) in enumerate(alone):
        mel[row, :, : lengths[row]], source[row, : HOP * lengths[row]] = row_mel[0], row_source[0, 0]
    extent = Extent(longest, min(lengths), torch.tensor(lengths))
    keep = Span(min(start, longest), longest)
    together = tiny.generator(mel, source, keep, extent)
    for row, length in enumerate(lengths):
        expected = tiny.decode(*alone[row], Span(min(keep.start, length), length))[0]
        assert torch.allclose(together[row, : len(expected)], expected, atol=5e-6, rtol=0)
        assert not together[row, len(expected) :].any()


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 30), min_size=2, max_size=4))
def test_pitch_of_rows_of_unequal_length_is_that_of_each_alone(tiny: Vocoder, lengths: list[int]) -> None:
    mel = torch.zeros(len(lengths), 80, max(lengths))
    for row, length in enumerate(lengths):
        mel[row, :, :length] = inputs(length)[0][0]
    together = tiny.f0_predictor(mel, Extent(max(lengths), min(lengths), torch.tensor(lengths)))
    for row, length in enumerate(lengths):
        assert (together[row, :length] - tiny.f0_predictor(inputs(length)[0])[0]).abs().max() < 1e-10
        assert not together[row, length:].any()


def test_context_of_its_reach_stands_for_the_whole_signal(tiny: Vocoder) -> None:
    mel_reach, source_reach = tiny.generator.reach()
    context = max(mel_reach, -(-source_reach // HOP))
    mel, source = inputs(70)
    whole = tiny.decode(mel, source)
    start, stop = 30, 40
    window = slice(start - context, stop + context)
    samples = slice(HOP * window.start, HOP * window.stop)
    cut = tiny.decode(mel[:, :, window], source[:, :, samples], Span(context, context + stop - start))
    assert torch.allclose(cut, whole[:, HOP * start : HOP * stop], atol=2e-6, rtol=0)


def test_reach_is_where_influence_ends(tiny: Vocoder) -> None:
    mel_reach, source_reach = tiny.generator.reach()
    mel, source = inputs(60)
    double = HiFTGenerator(tiny.config).double()
    double.load_state_dict(tiny.generator.state_dict())
    whole = double(mel.double(), source[:, 0].double(), Span(30, 31))
    for frame, influences in ((30 - mel_reach, True), (30 - mel_reach - 1, False), (30 + mel_reach + 1, False)):
        changed = mel.double()
        changed[:, :, frame] += 3
        assert torch.equal(double(changed, source[:, 0].double(), Span(30, 31)), whole) is not influences
    for sample in (30 * HOP - source_reach - 1, 31 * HOP + source_reach):
        changed = source[:, 0].double()
        changed[:, sample] += 3
        assert torch.equal(double(mel.double(), changed, Span(30, 31)), whole)


def test_margins_cost_little(tiny: Vocoder) -> None:
    frames = tiny.generator.spectrum.frames_for(Span(15 * HOP, 40 * HOP))
    need, needs = tiny.generator.plan(55, frames)
    computed = [len(need), *(len(stage.output) for stage in needs)]
    in_frames = [count / rate for count, rate in zip(computed, (1, 8, 40, 120), strict=True)]
    assert all(earlier > later for earlier, later in pairwise(in_frames))
    assert in_frames[-1] < 26
    assert in_frames[-2] < 29


def test_convolution_of_a_section_equals_that_of_the_whole() -> None:
    conv = CentredConv(3, 4, 5, dilation=3)
    extent = Extent.even(40)
    whole = Section(torch.randn(2, 3, 40), Span(0, 40), extent)
    expected = torch.nn.functional.conv1d(whole.values, conv.weight, conv.bias, padding=6, dilation=3)
    assert torch.allclose(conv.at(whole, Span(0, 40)).values, expected, atol=1e-6)
    for start, stop in ((0, 3), (2, 30), (17, 40), (20, 21), (-5, 50)):
        inner = Span(start, stop).grown(conv.reach).clipped(40)
        section = conv.at(Section(whole.crop(inner), inner, extent), Span(start, stop))
        assert section.span == Span(start, stop).clipped(40)
        assert torch.allclose(section.values, expected[:, :, section.span.start : section.span.stop], atol=1e-6)
    with pytest.raises(ValueError, match="was asked of a section"):
        Section(whole.crop(Span(5, 20)), Span(5, 20), extent).crop(Span(4, 10))
    with pytest.raises(ValueError, match="cannot end before"):
        Span(3, 2)


@pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (32, 8), (16, 2)])
def test_spectrum_is_the_stft_and_its_inverse(n_fft: int, hop: int) -> None:
    signal = torch.randn(2, 40 * hop)
    spectrum = Spectrum(n_fft, hop)
    ours = spectrum(signal, Extent.even(40 * hop)).values
    window = torch.hann_window(n_fft)
    theirs = torch.stft(signal, n_fft, hop, n_fft, window, return_complex=True)
    assert torch.allclose(ours, torch.cat([theirs.real, theirs.imag], 1), atol=2e-6)

    changed = torch.randn(2, n_fft + 2, 41)
    extent = Extent.even(41)
    whole = spectrum.inverse(Section(changed, Span(0, 41), extent), Span(0, 40 * hop))
    real, imaginary = changed.chunk(2, 1)
    assert torch.allclose(
        whole, torch.istft(torch.complex(real, imaginary), n_fft, hop, n_fft, window, length=40 * hop), atol=2e-6
    )
    for start, stop in ((0, hop), (5, 6), (13 * hop, 30 * hop), (39 * hop + 1, 40 * hop)):
        frames = spectrum.frames_for(Span(start, stop)).clipped(41)
        section = Section(changed[:, :, frames.start : frames.stop], frames, extent)
        part = spectrum.inverse(section, Span(start, stop))
        assert torch.allclose(part, whole[:, start:stop], atol=1e-6)


def test_spectrum_needs_frames_that_tile_its_hop() -> None:
    with pytest.raises(ValueError, match="multiple of twice the hop"):
        Spectrum(16, 5)


def test_upsampling_that_cannot_be_centred_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be centred"):
        HiFTGenerator(VocoderConfig(base_channels=8, f0_channels=8, upsample_kernels=(16, 11, 8)))
