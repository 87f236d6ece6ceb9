"""Files of saved voices (`spk2info.pt`) in the flavours that are about, read and written.

Each entry becomes a `VoicePrompt`. Knows neither audio nor models. Source: docs/model.md, "Request modes".
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cosyvoice_core.checkpoint.tensors import load_plain
from cosyvoice_core.config import FlowConfig
from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.inputs import FloatArray, IntArray, VoicePrompt
from cosyvoice_core.voice.alignment import align

EncodeText = Callable[[str], Sequence[int]]

_SPEAKER_KEYS = ("flow_embedding", "embedding", "llm_embedding")
"""In this order: a voice saved with its prompt sounds with the vector that was taken from that prompt."""


def load_saved_voices(
    path: Path, tokenizer_encode: EncodeText | None = None, *, flow: FlowConfig | None = None
) -> dict[str, VoicePrompt]:
    """Voices of a saved-speaker file by name. Three flavours of entries are read:

    `embedding` alone (other things that old models stored beside it are passed over); the prompt features written
    by the original's own saving, with ids for a transcript; and features beside a transcript as a string, whose ids
    are stored or come from `tokenizer_encode`. Tokens and mel are cut to fit each other; `flow` says which sizes the
    model takes. Raises CheckpointError naming file, entry, and what was expected.
    """
    loaded = load_plain(path)
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: expected a dict of voices, found {type(loaded).__name__}")
    voices: dict[str, VoicePrompt] = {}
    for name, entry in loaded.items():
        if not isinstance(name, str) or not isinstance(entry, dict):
            raise CheckpointError(f"{path}: voice {name!r} is a {type(entry).__name__}, expected a dict of tensors")
        voices[name] = _Entry(f"{path}: voice {name!r}", entry, flow or FlowConfig()).voice(tokenizer_encode)
    return voices


class Flavour(StrEnum):
    """What an entry of a written file holds; all three are read.

    ORIGINAL: the prompt's features as the original saves them, and the speaker vector for its mode sft; VECTOR: the
    speaker vector alone; TEXT: features beside the transcript as a string, as async_cosyvoice has them.
    """

    ORIGINAL = "original"
    VECTOR = "vector"
    TEXT = "text"


def save_voices(path: Path, voices: Mapping[str, VoicePrompt], flavour: Flavour = Flavour.ORIGINAL) -> None:
    """Write voices by name. The file appears whole or not at all.

    ORIGINAL has no place for the transcript's text, only for its ids. A voice without a prompt is a VECTOR always.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(dumped_voices(voices, flavour))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def dumped_voices(voices: Mapping[str, VoicePrompt], flavour: Flavour = Flavour.ORIGINAL) -> bytes:
    """The contents of such a file."""
    file = io.BytesIO()
    torch.save({name: _stored(name, voice, flavour) for name, voice in voices.items()}, file)
    return file.getvalue()


def _stored(name: str, voice: VoicePrompt, flavour: Flavour) -> dict[str, Tensor | str]:
    speaker = torch.tensor(voice.speaker)[None]
    if len(voice.speech_tokens) == 0 or flavour is Flavour.VECTOR:
        return {"embedding": speaker}
    ids = torch.tensor(voice.transcript_ids, dtype=torch.int32)
    tokens = torch.tensor(voice.speech_tokens, dtype=torch.int32)
    mel = torch.tensor(voice.mel)
    if flavour is Flavour.TEXT:
        return {
            "name": name,
            "spk_id": name,
            "prompt_text": voice.transcript,
            "prompt_text_token": ids[None],
            "speech_feat": mel[None],
            "speech_token": tokens[None],
            "embedding": speaker,
        }

    def with_length(key: str, value: Tensor) -> dict[str, Tensor]:
        return {key: value[None], f"{key}_len": torch.tensor([len(value)], dtype=torch.int32)}

    return {
        **with_length("prompt_text", ids),
        **with_length("llm_prompt_speech_token", tokens),
        **with_length("flow_prompt_speech_token", tokens.clone()),
        **with_length("prompt_speech_feat", mel),
        "llm_embedding": speaker,
        "flow_embedding": speaker.clone(),
        "embedding": speaker.clone(),
    }


class _Entry:
    """One voice of a file, whatever its flavour."""

    def __init__(self, place: str, values: Mapping[Any, Any], flow: FlowConfig) -> None:
        self._place = place
        self._values = values
        self._flow = flow

    def voice(self, encode: EncodeText | None) -> VoicePrompt:
        speaker = self._speaker()
        if "flow_prompt_speech_token" in self._values:
            return self._prompt(speaker, "flow_prompt_speech_token", "prompt_speech_feat", "", self._ids("prompt_text"))
        if "prompt_text" in self._values or "prompt_text_token" in self._values:
            transcript, ids = self._transcript(encode)
            return self._prompt(speaker, "speech_token", "speech_feat", transcript, ids)
        return VoicePrompt(speaker)

    def _prompt(self, speaker: FloatArray, tokens_key: str, mel_key: str, text: str, ids: IntArray) -> VoicePrompt:
        tokens = self._ids(tokens_key)
        if len(tokens) and int(tokens.max()) >= self._flow.vocab_size:
            raise self._unlike(tokens_key, f"speech tokens below {self._flow.vocab_size}", int(tokens.max()))
        tokens, mel = align(tokens, self._mel(mel_key))
        if len(tokens) == 0:
            raise self._unlike(tokens_key, "at least one token with its two mel frames", "none")
        return VoicePrompt(speaker, tokens, mel, text, ids)

    def _transcript(self, encode: EncodeText | None) -> tuple[str, IntArray]:
        text = self._values.get("prompt_text", "")
        if not isinstance(text, str):
            raise self._unlike("prompt_text", "a string beside speech_token and speech_feat", _kind(text))
        if "prompt_text_token" in self._values:
            return text, self._ids("prompt_text_token")
        if text and encode is None:
            raise self._unlike("prompt_text_token", "the ids of prompt_text, or a tokenizer to make them", "neither")
        return text, np.asarray(encode(text) if encode and text else (), np.int32)

    def _speaker(self) -> FloatArray:
        key = next((key for key in _SPEAKER_KEYS if key in self._values), _SPEAKER_KEYS[1])
        vector = self._numbers(key).reshape(-1)
        if len(vector) != self._flow.speaker_dim:
            raise self._unlike(key, f"{self._flow.speaker_dim} values", f"{len(vector)}")
        return vector

    def _mel(self, key: str) -> FloatArray:
        mel = self._numbers(key)
        if mel.ndim == 3 and len(mel) == 1:
            mel = mel[0]
        if mel.ndim != 2 or mel.shape[1] != self._flow.mel_bins:
            raise self._unlike(key, f"[1, frames, {self._flow.mel_bins}]", list(mel.shape))
        return mel

    def _ids(self, key: str) -> IntArray:
        value = self._tensor(key)
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise self._unlike(key, "whole numbers", value.dtype)
        if value.dim() not in (1, 2) or (value.dim() == 2 and len(value) != 1):
            raise self._unlike(key, "[1, ids]", list(value.shape))
        if value.numel() and (int(value.min()) < 0 or int(value.max()) > np.iinfo(np.int32).max):
            raise self._unlike(key, "ids that are not negative", int(value.min()))
        return np.ascontiguousarray(value.reshape(-1).to(torch.int32).numpy())

    def _numbers(self, key: str) -> FloatArray:
        value = self._tensor(key)
        if not value.is_floating_point():
            raise self._unlike(key, "real numbers", value.dtype)
        numbers = np.ascontiguousarray(value.to(torch.float32).numpy())
        if not np.isfinite(numbers).all():
            raise self._unlike(key, "finite numbers", "others among them")
        return numbers

    def _tensor(self, key: str) -> Tensor:
        value = self._values.get(key)
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
            raise self._unlike(key, "a tensor", "nothing" if value is None else _kind(value))
        return value.detach()

    def _unlike(self, key: str, expected: str, found: object) -> CheckpointError:
        return CheckpointError(f"{self._place}: {key}: expected {expected}, found {found}")


def _kind(value: object) -> str:
    return type(value).__name__
