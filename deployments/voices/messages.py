"""What travels between callers and the ingress about voices. Frozen, as all messages."""

from __future__ import annotations

from dataclasses import dataclass

from cosyvoice_core.voice.quality import QualityReport
from deployments.ingress.callers import ANYONE, Caller


@dataclass(frozen=True, slots=True)
class VoiceInfo:
    """A voice that can be asked for by name, and the modes it can be used in.

    saved: by a caller, otherwise it came with the model; created_at: seconds since 1970, 0 if nobody knows; problem:
    why it cannot be spoken with, "" if it can.
    """

    name: str
    modes: tuple[str, ...]
    prompt_s: float
    saved: bool = False
    created_at: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NewVoice:
    """A voice to be saved: prompt audio (any container) and what is said in it, as in a `SpeakCall`.

    consent: a note on who agreed to what, kept with the voice. overwrite: a voice of that name is replaced. The caller
    says whose voice it is.
    """

    name: str
    audio: bytes
    transcript: str = ""
    consent: str = ""
    overwrite: bool = False
    caller: Caller = ANYONE


@dataclass(frozen=True, slots=True)
class VoiceDetails:
    """All that is told of one voice; transcript as it is read; quality: of its recording, None where there was none."""

    info: VoiceInfo
    transcript: str = ""
    consent: str = ""
    quality: QualityReport | None = None
