"""Why something cannot be done with a saved voice. Knows nothing of HTTP: doors map reasons to their own codes."""

from __future__ import annotations

from enum import StrEnum

from cosyvoice_core.errors import shown

_MOST = 500


class Reason(StrEnum):
    """What a caller can tell apart."""

    NO_STORE = "no_voice_store"
    UNKNOWN = "voice_not_found"
    EXISTS = "voice_exists"
    FORBIDDEN = "voice_not_yours"
    TOO_MANY = "too_many_voices"
    DAMAGED = "voice_damaged"
    UNAVAILABLE = "voice_store_unavailable"


class VoiceRefusedError(RuntimeError):
    """Something was asked of the saved voices that cannot be; the message may quote the user, and is one line."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(shown(message, _MOST))

    def __reduce__(self) -> tuple[type[VoiceRefusedError], tuple[Reason, str]]:
        return type(self), (self.reason, str(self))
