"""Speech tokens and speaker vectors against the numbers of the original, by ONNX and by the port to torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.features import whisper_log_mel
from cosyvoice_core.audio.resample import resample
from cosyvoice_core.voice.s3_tokenizer import S3Tokenizer, fsq_ids, token_lengths
from cosyvoice_core.voice.speaker import SpeakerEncoder
from cosyvoice_core.voice.speech_tokenizer import SpeechTokenizer

pytestmark = pytest.mark.golden

Arrays = dict[str, npt.NDArray[np.generic]]


@pytest.fixture(scope="module")
def arrays(golden_lm: Path) -> Arrays:
    with np.load(golden_lm / "s3.npz") as stored:
        return {key: stored[key] for key in stored.files}


@pytest.fixture(scope="module")
def port(golden_lm: Path) -> S3Tokenizer:
    return S3Tokenizer.from_file(golden_lm / "s3v2_tiny.pt")


def cases(arrays: Arrays, field: str, prefix: str = "") -> list[str]:
    """Names of the cases that have `field`."""
    found = [key.removesuffix(f".{field}") for key in arrays if key.endswith(f".{field}") and key.startswith(prefix)]
    assert found
    return found


def wave16k(path: Path) -> npt.NDArray[np.float32]:
    decoded = decode_audio(path)
    return resample(decoded.samples, decoded.rate, 16000)


def assert_ids(actual: npt.NDArray[np.generic], expected: npt.NDArray[np.generic], pre_tanh: torch.Tensor) -> None:
    """Equal but for digits whose value lies within 1e-4 of a rounding edge (at +-0.5 after the squashing).

    actual, expected (L,), pre_tanh (L, digits).
    """
    assert actual.shape == expected.shape
    powers = 3 ** np.arange(pre_tanh.shape[1])
    digits, wanted = (ids[:, None].astype(np.int64) // powers % 3 for ids in (actual, expected))
    edge = (torch.tanh(pre_tanh).abs() * 0.9990000128746033 - 0.5).abs().numpy() < 1e-4
    assert ((digits == wanted) | edge).all()
    assert (digits == wanted).mean() > 0.9


def test_every_array_is_compared(arrays: Arrays) -> None:
    lengths = {f"{name}.{field}" for name in cases(arrays, "hidden", "T") for field in ("feats", "hidden", "ids")}
    batch = {f"batch.{field}" for field in ("feats", "lengths", "ids", "id_lengths")}
    files = {f"{name}.{field}" for name in cases(arrays, "embedding") for field in ("ids", "embedding")}
    fsq = {f"fsq.{field}" for field in ("pre_tanh", "index", "hidden", "hidden_index")}
    assert set(arrays) == lengths | batch | files | fsq


def test_hidden_states_and_ids_of_single_items(arrays: Arrays, port: S3Tokenizer) -> None:
    for name in cases(arrays, "hidden", "T"):
        log_mel = torch.from_numpy(arrays[f"{name}.feats"])
        frames = torch.tensor([log_mel.shape[2]])
        hidden = port.hidden(log_mel, frames)
        np.testing.assert_allclose(hidden.numpy(), arrays[f"{name}.hidden"], rtol=0, atol=1e-4, err_msg=name)
        ids, lengths = port(log_mel, frames)
        assert lengths.tolist() == [ids.shape[1]]
        assert_ids(ids[0].numpy(), arrays[f"{name}.ids"][0], port.pre_tanh(hidden)[0])


def test_ids_of_a_padded_batch(arrays: Arrays, port: S3Tokenizer) -> None:
    log_mel, frames = (torch.from_numpy(arrays[f"batch.{field}"]) for field in ("feats", "lengths"))
    ids, lengths = port(log_mel, frames)
    np.testing.assert_array_equal(lengths.numpy(), arrays["batch.id_lengths"])
    np.testing.assert_array_equal(token_lengths(frames).numpy(), arrays["batch.id_lengths"])
    pre_tanh = port.pre_tanh(port.hidden(log_mel, frames))
    for item, count in enumerate(lengths.tolist()):
        assert_ids(ids[item, :count].numpy(), arrays["batch.ids"][item, :count], pre_tanh[item, :count])


def test_quantiser(arrays: Arrays, port: S3Tokenizer) -> None:
    pre_tanh = torch.from_numpy(arrays["fsq.pre_tanh"])
    assert_ids(fsq_ids(pre_tanh).numpy(), arrays["fsq.index"], pre_tanh)
    projected = port.pre_tanh(torch.from_numpy(arrays["fsq.hidden"]))[0]
    assert_ids(fsq_ids(projected).numpy(), arrays["fsq.hidden_index"], projected)


def test_tokens_of_files_by_onnx_and_by_the_port(golden_lm: Path, arrays: Arrays, port: S3Tokenizer) -> None:
    tokenizer = SpeechTokenizer(golden_lm / "ckpt" / "speech_tokenizer_v2.onnx")
    for name in cases(arrays, "embedding"):
        wave = wave16k(golden_lm / "audio" / f"{name}.wav")
        expected = arrays[f"{name}.ids"].reshape(-1)
        log_mel = torch.from_numpy(whisper_log_mel(wave))[None]
        frames = torch.tensor([log_mel.shape[2]])
        pre_tanh = port.pre_tanh(port.hidden(log_mel, frames))[0]
        by_onnx = tokenizer.tokens(wave)
        assert by_onnx.dtype == np.int32
        assert_ids(by_onnx, expected, pre_tanh)
        assert_ids(port(log_mel, frames)[0][0].numpy(), expected, pre_tanh)


def test_speaker_vectors_of_files(golden_lm: Path, arrays: Arrays) -> None:
    speaker = SpeakerEncoder(golden_lm / "ckpt" / "campplus.onnx")
    for name in cases(arrays, "embedding"):
        vector = speaker.embedding(wave16k(golden_lm / "audio" / f"{name}.wav"))
        assert vector.dtype == np.float32
        np.testing.assert_allclose(vector, arrays[f"{name}.embedding"].reshape(-1), rtol=0, atol=1e-4, err_msg=name)
