"""The vocoder against the original: every stage from golden inputs, then whole calls.

The flow's part of the session files is checked elsewhere; here each vocoder call is fed its own golden input.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.vocoder import Vocoder, reference_resize
from cosyvoice_core.vocoder.crossfade import crossfade
from cosyvoice_core.vocoder.section import Extent, Section
from tests.golden_tests.arrays import Arrays, read_arrays, unknown
from tests.golden_tests.arrays import sessions as stored_sessions
from tests.golden_tests.configs import vocoder_config

pytestmark = pytest.mark.golden

F0_HZ = 2e-3
SAME_OPERATIONS = 1e-5
SOURCE_FROM_MEL = 5e-3
DECODE = 2e-5
STREAM_CHUNK = 5e-5
RESIZED = 1e-6
CROSSFADE = 1e-6
KNOWN = [
    *("mel", "f0", "noise", "sines", "source", "speech", "clip_speech", "xfade_(new|old|out)"),
    *("cache_source", "source_with_cache", "speech_with_cache"),
    *("decode_mel", "decode_source", "decode_speech", "decode_stft_(real|imag)", "decode_conv_(pre|post)"),
    "decode_(ups|source_down|source_res|resblock)0",
]
"""What the arrays of `hift.npz` may be called; each of these names is compared below."""


def tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def golden(golden_acoustic: Path) -> dict[str, Tensor]:
    return tensors(read_arrays(golden_acoustic / "hift.npz"))


@pytest.fixture(scope="module")
def sessions(golden_acoustic: Path) -> dict[str, dict[str, Tensor]]:
    return {name: tensors(arrays) for name, arrays in stored_sessions(golden_acoustic).items()}


@pytest.fixture(scope="module")
def vocoder(golden_acoustic: Path) -> Vocoder:
    return build(golden_acoustic, read_state(golden_acoustic / "hift.pt"))


def build(golden_acoustic: Path, state: dict[str, Tensor]) -> Vocoder:
    return Vocoder.from_state(state, vocoder_config(golden_acoustic / "config.json"), "hift.pt")


def gap(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item()


def source_tolerance(vocoder: Vocoder, f0: Tensor) -> float:
    """The tolerance of a source is given for up to a second; what float32 phase is off by grows with time."""
    seconds = f0.shape[1] * vocoder.config.samples_per_frame / vocoder.config.sample_rate
    return SOURCE_FROM_MEL * max(seconds, 1.0)


def injected_noise(vocoder: Vocoder, seed: int, call: int, mel: Tensor) -> Tensor:
    """The noise the fixtures were made with."""
    samples = mel.shape[2] * vocoder.config.samples_per_frame
    drawn = np.random.RandomState(seed * 1000 + call).standard_normal((1, samples, vocoder.config.partials))
    return torch.from_numpy(drawn.astype(np.float32))


def assert_same_sound(actual: Tensor, expected: Tensor) -> None:
    """Where pitch is predicted, float32 phase limits agreement: rms within 1 %, no sample off by 0.05."""
    assert gap(actual, expected) < 0.05
    assert (actual - expected).double().square().mean() < 1e-4 * expected.double().square().mean()


def test_every_array_is_compared(golden: dict[str, Tensor]) -> None:
    assert unknown(golden, KNOWN) == []


def test_f0(vocoder: Vocoder, golden: dict[str, Tensor]) -> None:
    assert gap(vocoder.f0(golden["mel"]), golden["f0"]) < F0_HZ


def test_source_from_golden_f0(vocoder: Vocoder, golden: dict[str, Tensor]) -> None:
    sines = vocoder.m_source.reference_sines(golden["f0"])
    assert gap(sines[:, : golden["sines"].shape[1]], golden["sines"]) < SAME_OPERATIONS
    source = vocoder.m_source.reference(golden["f0"], golden["noise"])
    assert gap(source.unsqueeze(1), golden["source"]) < SAME_OPERATIONS


def test_float64_source_from_golden_f0(vocoder: Vocoder, golden: dict[str, Tensor]) -> None:
    source, _ = vocoder.m_source(golden["f0"].double(), vocoder.m_source.mix(golden["noise"]))
    assert gap(source.unsqueeze(1), golden["source"]) < source_tolerance(vocoder, golden["f0"])


def test_reference_call(vocoder: Vocoder, golden: dict[str, Tensor]) -> None:
    speech, source = vocoder.reference_vocode(golden["mel"], golden["noise"], torch.zeros(1, 1, 0))
    assert gap(source, golden["source"]) < source_tolerance(vocoder, golden["f0"])
    assert_same_sound(speech, golden["speech"])


def test_reference_call_with_cached_source(vocoder: Vocoder, golden: dict[str, Tensor]) -> None:
    cached = golden["cache_source"]
    speech, source = vocoder.reference_vocode(golden["mel"], golden["noise"], cached)
    assert torch.equal(source[:, :, : cached.shape[2]], cached)
    assert gap(source, golden["source_with_cache"]) < source_tolerance(vocoder, golden["f0"])
    assert_same_sound(speech, golden["speech_with_cache"])


def test_decode_of_golden_source(vocoder: Vocoder, golden: dict[str, Tensor]) -> None:
    assert gap(vocoder.decode(golden["mel"], golden["source"]), golden["speech"]) < DECODE
    assert gap(vocoder.decode(golden["mel"], golden["source_with_cache"]), golden["speech_with_cache"]) < DECODE
    assert gap(vocoder.decode(golden["decode_mel"], golden["decode_source"]), golden["decode_speech"]) < DECODE


def test_one_shot_of_injected_noise(vocoder: Vocoder, golden: dict[str, Tensor]) -> None:
    assert_same_sound(vocoder.vocode(golden["mel"], golden["noise"]), golden["speech"])


def test_layers_of_the_generator(vocoder: Vocoder, golden: dict[str, Tensor]) -> None:
    generator, mel = vocoder.generator, golden["decode_mel"]
    extent = Extent.even(mel.shape[2])
    spectrum = generator.spectrum(golden["decode_source"][:, 0], extent.scaled(vocoder.config.samples_per_frame))
    real, imaginary = spectrum.values.chunk(2, 1)
    assert gap(real, golden["decode_stft_real"]) < DECODE
    assert gap(imaginary, golden["decode_stft_imag"]) < DECODE

    frames = spectrum.span
    need, needs = generator.plan(mel.shape[2], frames)
    hidden = generator.conv_pre.at(Section(mel, need, extent), need)
    assert gap(hidden.values, golden["decode_conv_pre"]) < DECODE
    stage, first = generator.stages[0], needs[0]
    upsampled = stage.upsample(hidden, first)
    assert gap(upsampled, golden["decode_ups0"]) < DECODE
    strided = stage.stride_down(spectrum, first, stage.extent(extent))
    assert gap(strided.values, golden["decode_source_down0"]) < DECODE
    branch = stage.source_block(strided, first.joined)
    assert gap(branch.values, golden["decode_source_res0"]) < DECODE
    joined = Section(golden["decode_ups0"] + golden["decode_source_res0"], branch.span, branch.extent)
    # Recorded by reference from block 0, to whose output the original then adds those of blocks 1 and 2 in place.
    total = torch.stack([block(joined, first.output).values for block in stage.blocks]).sum(0)
    assert gap(total, golden["decode_resblock0"]) < DECODE
    assert (
        gap(generator.shape(Section(mel, need, extent), spectrum, frames).values, golden["decode_conv_post"]) < DECODE
    )


def test_limits_of_magnitude_and_audio(golden_acoustic: Path, golden: dict[str, Tensor]) -> None:
    state = read_state(golden_acoustic / "hift.pt")
    bias = state["conv_post.bias"].clone()
    bias[: len(bias) // 2] += 3.3
    loud = build(golden_acoustic, state | {"conv_post.bias": bias})
    speech = loud.decode(golden["decode_mel"], golden["decode_source"])
    assert gap(speech, golden["clip_speech"]) < DECODE
    assert speech.abs().max() == pytest.approx(golden["clip_speech"].abs().max().item())
    assert speech.abs().max() <= loud.config.audio_limit


def test_crossfade(golden: dict[str, Tensor], golden_acoustic: Path) -> None:
    overlap = json.loads((golden_acoustic / "config.json").read_text())["token2wav"]["source_cache_len"]
    assert gap(crossfade(golden["xfade_new"], golden["xfade_old"], overlap), golden["xfade_out"]) < CROSSFADE


def test_chunks_of_streams(vocoder: Vocoder, sessions: dict[str, dict[str, Tensor]], golden_acoustic: Path) -> None:
    overlap = json.loads((golden_acoustic / "config.json").read_text())["token2wav"]["source_cache_len"]
    for session in sessions.values():
        count = int(session["n_chunks"])
        assert count == sum(name.startswith("stream_chunk") for name in session)
        tail: Tensor | None = None
        for number in range(count):
            mel, source = session[f"stream_hift_mel{number}"], session[f"stream_hift_source{number}"]
            speech = vocoder.decode(mel, source)
            speech = speech if tail is None else crossfade(speech, tail, overlap)
            tail = speech[:, -overlap:]
            emitted = speech if number == count - 1 else speech[:, :-overlap]
            assert gap(emitted, session[f"stream_chunk{number}"]) < STREAM_CHUNK


def test_sources_of_streams(vocoder: Vocoder, sessions: dict[str, dict[str, Tensor]], golden_acoustic: Path) -> None:
    constants = json.loads((golden_acoustic / "config.json").read_text())["token2wav"]
    seeds = json.loads((golden_acoustic / "manifest.json").read_text())["_noise_seeds"]["sessions"]
    for name, session in sessions.items():
        cached = torch.zeros(1, 1, 0)
        for number in range(int(session["n_chunks"])):
            mel, expected = session[f"stream_hift_mel{number}"], session[f"stream_hift_source{number}"]
            noise = injected_noise(vocoder, seeds[name], number, mel)
            _, source = vocoder.reference_vocode(mel, noise, cached)
            assert_same_sound(source, expected)
            cached = expected[:, :, -constants["source_cache_len"] :]


def test_one_shots(vocoder: Vocoder, sessions: dict[str, dict[str, Tensor]], golden_acoustic: Path) -> None:
    seeds = json.loads((golden_acoustic / "manifest.json").read_text())["_noise_seeds"]["sessions"]
    for name, session in sessions.items():
        mel, source = session["oneshot_hift_mel"], session["oneshot_hift_source"]
        assert gap(vocoder.decode(mel, source), session["speech_oneshot"]) < STREAM_CHUNK
        noise = injected_noise(vocoder, seeds[name], 0, mel)
        speech, own_source = vocoder.reference_vocode(mel, noise, torch.zeros(1, 1, 0))
        assert_same_sound(own_source, source)
        assert_same_sound(speech, session["speech_oneshot"])


def test_speeds(vocoder: Vocoder, sessions: dict[str, dict[str, Tensor]], golden_acoustic: Path) -> None:
    seeds = json.loads((golden_acoustic / "manifest.json").read_text())["_noise_seeds"]["sessions"]
    checked = 0
    for name, session in sessions.items():
        for array in session:
            if (found := re.fullmatch(r"speech_speed(\d+)", array)) is None:
                continue
            mel = reference_resize(session["oneshot_hift_mel"], int(found[1]) / 100)
            if f"speed{found[1]}_hift_mel" in session:
                assert gap(mel, session[f"speed{found[1]}_hift_mel"]) < RESIZED
            noise = injected_noise(vocoder, seeds[name], 0, mel)
            speech, _ = vocoder.reference_vocode(mel, noise, torch.zeros(1, 1, 0))
            assert_same_sound(speech, session[array])
            checked += 1
    assert checked
