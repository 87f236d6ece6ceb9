"""From files to voice prompts: alignment, early refusal, models that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.audio.encode import to_pcm16, wav_header
from cosyvoice_core.audio.limits import AudioLimits
from cosyvoice_core.errors import CheckpointError, EngineError, InputError
from cosyvoice_core.voice.alignment import align
from cosyvoice_core.voice.encoder import VoiceEncoder
from cosyvoice_core.voice.speaker import SpeakerEncoder
from cosyvoice_core.voice.speech_tokenizer import SpeechTokenizer
from tests.audio.sounds import Array, encoded_tone, tone
from tests.voice.models import write_speaker_encoder, write_speech_tokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    write_speech_tokenizer(directory / "speech_tokenizer_v2.onnx")
    write_speaker_encoder(directory / "campplus.onnx")
    return directory


@pytest.fixture(scope="module")
def encoder(models: Path) -> VoiceEncoder:
    return VoiceEncoder.from_directory(models)


def wav(samples: Array, rate: int) -> bytes:
    return wav_header(rate, len(samples)) + to_pcm16(samples)


@pytest.mark.parametrize("name", ["wav16", "flac", "mp3", "opus", "m4a"])
def test_a_recording_becomes_a_prompt(encoder: VoiceEncoder, name: str) -> None:
    voice = encoder.encode(encoded_tone(name, 2.0), "Hello.", [3, 1, 2])
    prompt = voice.prompt
    assert len(prompt.speech_tokens) in (50, 51)
    assert prompt.mel.shape == (2 * len(prompt.speech_tokens), 80)
    assert prompt.speaker.shape == (192,)
    assert (prompt.speaker.dtype, prompt.mel.dtype, prompt.speech_tokens.dtype) == (np.float32, np.float32, np.int32)
    assert (prompt.transcript, prompt.transcript_ids.tolist()) == ("Hello.", [3, 1, 2])
    assert abs(voice.quality.duration_s - 2.0) < 0.1


def test_a_path_and_its_bytes_give_the_same_voice(encoder: VoiceEncoder, tmp_path: Path) -> None:
    content = encoded_tone("flac", 1.0)
    (tmp_path / "voice.flac").write_bytes(content)
    one, other = encoder.encode(content), encoder.encode(tmp_path / "voice.flac")
    assert one.quality == other.quality
    for name in ("speaker", "mel", "speech_tokens", "transcript_ids"):
        np.testing.assert_array_equal(getattr(one.prompt, name), getattr(other.prompt, name))


@settings(max_examples=60)
@given(
    samples=st.integers(8000, 60000),
    rate=st.sampled_from([16000, 22050, 24000, 44100, 48000]),
    level=st.floats(0.01, 1.0),
)
def test_prompts_of_any_length_are_aligned(encoder: VoiceEncoder, samples: int, rate: int, level: float) -> None:
    sound = tone(samples / rate, rate, level=level)
    if len(sound) / rate < 0.5:
        with pytest.raises(InputError, match="too short"):
            encoder.encode(wav(sound, rate))
        return
    prompt = encoder.encode(wav(sound, rate)).prompt
    assert len(prompt.mel) == 2 * len(prompt.speech_tokens)
    assert len(prompt.speech_tokens) / 25 == pytest.approx(len(sound) / rate, abs=0.045)


@pytest.mark.parametrize(
    ("tokens", "frames", "kept"), [(63, 125, 62), (62, 125, 62), (10, 30, 10), (0, 9, 0), (5, 1, 0)]
)
def test_alignment_keeps_what_both_hold(tokens: int, frames: int, kept: int) -> None:
    ids, mel = align(np.arange(tokens, dtype=np.int32), np.zeros((frames, 80), np.float32))
    assert ids.tolist() == list(range(kept))
    assert mel.shape == (2 * kept, 80)


def test_source_tokens_are_those_of_the_whole_recording(encoder: VoiceEncoder) -> None:
    content = wav(tone(1.01, 16000), 16000)
    tokens = encoder.source_tokens(content)
    assert tokens.dtype == np.int32
    assert len(tokens) == 26
    np.testing.assert_array_equal(encoder.encode(content).prompt.speech_tokens, tokens[:25])


def test_a_long_source_comes_in_pieces_with_the_tokens_of_its_length(encoder: VoiceEncoder) -> None:
    content = wav(tone(31.0, 16000), 16000)
    pieces = encoder.source(content)
    assert [len(pieces), sum(map(len, pieces))] == [2, 31 * 16000]
    assert sum(len(encoder.tokens(piece)) for piece in pieces) == 31 * 25
    short = wav(tone(1.01, 16000), 16000)
    (piece,) = encoder.source(short)
    np.testing.assert_array_equal(encoder.tokens(piece), encoder.source_tokens(short))


@pytest.mark.parametrize(("sound", "problem"), [(tone(2.5, 16000), "longer than 2 s"), (tone(1.0, 8000), "8000 Hz")])
def test_a_source_beyond_its_limits_is_refused(sound: Array, problem: str) -> None:
    untouchable: Any = Untouchable()
    encoder = VoiceEncoder(untouchable, untouchable, source_limits=AudioLimits(max_seconds=2.0))
    with pytest.raises(InputError, match=problem) as caught:
        encoder.source(wav(sound, 8000 if problem == "8000 Hz" else 16000))
    assert caught.value.field == "source_audio"


class Untouchable:
    """A model that must not be asked."""

    def tokens(self, wave16k: Array, field: str = "") -> None:
        raise AssertionError("the recording should have been refused before")

    embedding = tokens


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a known audio format"),
        (wav(tone(0.4, 16000), 16000), "too short"),
        (wav(tone(30.1, 16000), 16000), "longer than 30 s"),
        (wav(np.zeros(16000, np.float32), 16000), "silent"),
        (wav(tone(1.0, 8000), 8000), "8000 Hz"),
    ],
)
def test_bad_recordings_are_refused_before_any_model_runs(content: bytes, problem: str) -> None:
    untouchable: Any = Untouchable()
    encoder = VoiceEncoder(untouchable, untouchable)
    with pytest.raises(InputError, match=problem) as caught:
        encoder.encode(content)
    assert caught.value.field == "prompt_audio"
    with pytest.raises(InputError, match=problem) as caught:
        encoder.source_tokens(content)
    assert caught.value.field == "source_audio"


def test_limits_are_settings_but_never_beyond_what_the_tokenizer_takes(models: Path) -> None:
    strict = VoiceEncoder.from_directory(models, AudioLimits(max_seconds=2.0))
    with pytest.raises(InputError, match="longer than 2 s"):
        strict.encode(wav(tone(3.0, 16000), 16000))
    generous = VoiceEncoder.from_directory(models, AudioLimits(max_seconds=60.0))
    with pytest.raises(InputError, match="longer than 30 s"):
        generous.encode(wav(tone(31.0, 16000), 16000))
    with pytest.raises(InputError, match="longer than 30 s"):
        SpeechTokenizer(models / "speech_tokenizer_v2.onnx").tokens(tone(30.1, 16000))


@settings(max_examples=200)
@given(content=st.binary(max_size=400))
def test_no_bytes_crash_the_encoder(encoder: VoiceEncoder, content: bytes) -> None:
    with pytest.raises(InputError):
        encoder.encode(content)


@settings(max_examples=60)
@given(integers=st.binary(min_size=2, max_size=60000), rate=st.integers(1, 2**32 - 1), known=st.booleans())
def test_any_samples_at_any_rate_give_a_voice_or_an_input_error(
    encoder: VoiceEncoder, integers: bytes, rate: int, known: bool
) -> None:
    samples = np.frombuffer(integers[: len(integers) // 2 * 2], "<i2")
    rate = 16000 if known else rate
    header = bytearray(wav_header(16000, len(samples)))
    header[24:28] = rate.to_bytes(4, "little")
    try:
        voice = encoder.encode(bytes(header) + samples.tobytes())
    except InputError:
        return
    assert np.isfinite(voice.prompt.mel).all()
    assert np.isfinite(voice.prompt.speaker).all()


def test_missing_broken_and_foreign_models_are_named(models: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"speech_tokenizer_v2\.onnx: file is missing"):
        VoiceEncoder.from_directory(tmp_path)
    (tmp_path / "speech_tokenizer_v2.onnx").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match=r"speech_tokenizer_v2\.onnx: not a usable ONNX model"):
        VoiceEncoder.from_directory(tmp_path)
    with pytest.raises(CheckpointError, match=r"campplus\.onnx: takes .*expected .*128"):
        SpeechTokenizer(models / "campplus.onnx")
    with pytest.raises(CheckpointError, match=r"speech_tokenizer_v2\.onnx: takes .*expected"):
        SpeakerEncoder(models / "speech_tokenizer_v2.onnx")
    write_speech_tokenizer(tmp_path / "of_80_bins.onnx", mel_bins=80)
    with pytest.raises(CheckpointError, match=r"of_80_bins\.onnx: takes .*80.*expected .*128"):
        SpeechTokenizer(tmp_path / "of_80_bins.onnx")


def test_a_model_that_produces_nonsense_is_an_engine_error(tmp_path: Path) -> None:
    write_speaker_encoder(tmp_path / "campplus.onnx", scale=float("inf"))
    with pytest.raises(EngineError, match="not finite"):
        SpeakerEncoder(tmp_path / "campplus.onnx").embedding(tone(1.0, 16000))


def test_providers_that_are_not_there_are_left_out(models: Path) -> None:
    tokenizer = SpeechTokenizer(models / "speech_tokenizer_v2.onnx", providers=("NoSuchProvider",))
    assert tokenizer.providers == ("CPUExecutionProvider",)
    with pytest.raises(ValueError, match="threads"):
        SpeechTokenizer(models / "speech_tokenizer_v2.onnx", threads=0)


def test_the_demo_checkpoint_hears_its_own_prompts(demo_checkpoint: Path) -> None:
    encoder = VoiceEncoder.from_directory(demo_checkpoint)
    for path in sorted((demo_checkpoint / "prompts").glob("*.wav")):
        voice = encoder.encode(path)
        assert len(voice.prompt.speech_tokens) > 25
        assert voice.quality.warnings == ()
