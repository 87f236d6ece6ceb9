"""What is kept of a saved voice: a JSON record that is light enough to list, and the model's tensors (safetensors).

Reads whatever lies there as something a stranger may have written: nothing is unpickled, sizes are bounded, the tensors
must be those that the record was written with, and fit the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.inputs import VoicePrompt
from cosyvoice_core.voice.quality import QualityReport

MAX_TRANSCRIPT_CHARS = 2000
MAX_CONSENT_CHARS = 2000
MAX_RECORD_BYTES = 64 * 2**10
MAX_TENSOR_BYTES = 16 * 2**20
"""Far beyond 30 s of prompt."""

_MAX_TEXT_ID = 2**31 - 1
_TENSORS = {
    "speaker": (np.float32, 1),
    "speech_tokens": (np.int32, 1),
    "mel": (np.float32, 2),
    "transcript_ids": (np.int32, 1),
}


class DamagedVoiceError(ValueError):
    """What is stored of one voice cannot be used; says why."""


class Quality(BaseModel):
    """The recording's measures, see `cosyvoice_core.voice.quality.QualityReport`."""

    model_config = ConfigDict(frozen=True)

    duration_s: float
    level_dbfs: float
    clipping_share: float
    silence_share: float
    snr_db: float
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: QualityReport) -> Quality:
        return cls.model_validate(report, from_attributes=True)


class VoiceRecord(BaseModel):
    """All of a voice but its tensors. Fields that a later version of this service adds are passed over.

    tokens: of speech, 25 a second; transcript_tokens: ids of what is said; transcript: normalised; quality: None of a
    voice that came without its recording; sha256, bytes: of the tensors' file.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: str
    created_at: datetime
    tokens: int = Field(ge=0)
    transcript_tokens: int = Field(ge=0)
    transcript: Annotated[str, Field(max_length=8 * MAX_TRANSCRIPT_CHARS)] = ""
    consent: Annotated[str, Field(max_length=MAX_CONSENT_CHARS)] = ""
    quality: Quality | None = None
    sha256: str = ""
    bytes: int = Field(default=0, ge=0)


def new_record(
    name: str, prompt: VoicePrompt, *, consent: str = "", quality: QualityReport | None = None
) -> VoiceRecord:
    """The record of a voice that is made now, but for the digest of its tensors."""
    return VoiceRecord(
        name=name,
        created_at=datetime.now(UTC).replace(microsecond=0),
        tokens=len(prompt.speech_tokens),
        transcript_tokens=len(prompt.transcript_ids),
        transcript=prompt.transcript,
        consent=consent,
        quality=None if quality is None else Quality.of(quality),
    )


def created_at(record: VoiceRecord) -> int:
    """Seconds since 1970."""
    return int(record.created_at.timestamp())


def written(record: VoiceRecord, prompt: VoicePrompt) -> tuple[bytes, bytes]:
    """Contents of the record's and of the tensors' file."""
    tensors = save({name: np.ascontiguousarray(getattr(prompt, name), kind) for name, (kind, _) in _TENSORS.items()})
    sealed = record.model_copy(update={"sha256": hashlib.sha256(tensors).hexdigest(), "bytes": len(tensors)})
    return json.dumps(sealed.model_dump(mode="json"), ensure_ascii=False, indent=1).encode(), tensors


def read_record(data: bytes, name: str) -> VoiceRecord:
    """The record of the voice `name`. Raises DamagedVoiceError."""
    if len(data) > MAX_RECORD_BYTES:
        raise DamagedVoiceError(f"its record has {len(data)} bytes, more than {MAX_RECORD_BYTES}")
    try:
        record = VoiceRecord.model_validate(json.loads(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise DamagedVoiceError(f"its record: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise DamagedVoiceError("its record is no JSON") from None
    if record.name != name:
        raise DamagedVoiceError("its record is that of another voice")
    return record


def read_tensors(data: bytes, record: VoiceRecord, flow: FlowConfig) -> VoicePrompt:
    """The voice, checked against its record and the sizes of the model. Raises DamagedVoiceError."""
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise DamagedVoiceError("its tensors are not those that were written")
    try:
        tensors: Mapping[str, np.ndarray] = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedVoiceError(f"its tensors cannot be read ({str(error)[:100]})") from None
    for name, (kind, dimensions) in _TENSORS.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype != kind or tensor.ndim != dimensions:
            raise DamagedVoiceError(f"{name} is missing or of another kind")
        if not np.isfinite(tensor).all():
            raise DamagedVoiceError(f"{name} is not finite")
    speaker, tokens, mel = tensors["speaker"], tensors["speech_tokens"], tensors["mel"]
    ids = tensors["transcript_ids"]
    if len(speaker) != flow.speaker_dim or mel.shape[1] != flow.mel_bins:
        raise DamagedVoiceError(f"it was made for another model ({len(speaker)} speaker values, {mel.shape[1]} bins)")
    for name, values, above in (("speech_tokens", tokens, flow.vocab_size), ("transcript_ids", ids, _MAX_TEXT_ID)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < above:
            raise DamagedVoiceError(f"{name} are not all below {above}")
    if (len(tokens), len(ids)) != (record.tokens, record.transcript_tokens):
        raise DamagedVoiceError("its tensors have another length than its record says")
    try:
        return VoicePrompt(speaker, tokens, mel, record.transcript, ids)
    except ValueError as error:
        raise DamagedVoiceError(str(error)) from None
