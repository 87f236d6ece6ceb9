"""Voices that can be asked for by name."""

from __future__ import annotations

from collections.abc import Mapping

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import Mode, VoicePrompt
from deployments.ingress.callers import ANYONE, Caller
from deployments.messages import VoiceInfo


class VoiceRegistry:
    """Saved voices of the checkpoint; read once at start."""

    def __init__(self, voices: Mapping[str, VoicePrompt], token_rate: int) -> None:
        self._voices = dict(voices)
        self._token_rate = token_rate

    def get(self, name: str, caller: Caller = ANYONE) -> VoicePrompt:
        """Raises InputError that lists the names there are for this caller; others do not exist for it."""
        voice = self._voices.get(name)
        if voice is None or not caller.may_use(name):
            names = ", ".join(info.name for info in self.infos(caller))
            raise InputError("voice", f"there is no voice {name[:80]!r}", names)
        return voice

    def infos(self, caller: Caller = ANYONE) -> list[VoiceInfo]:
        """Of the voices there are for this caller."""
        return [
            VoiceInfo(name, tuple(mode.value for mode in _modes(voice)), len(voice.speech_tokens) / self._token_rate)
            for name, voice in sorted(self._voices.items())
            if caller.may_use(name)
        ]


def _modes(voice: VoicePrompt) -> list[Mode]:
    modes = [Mode.SFT]
    if len(voice.transcript_ids):
        modes.append(Mode.ZERO_SHOT)
    if len(voice.speech_tokens):
        modes += [Mode.CROSS_LINGUAL, Mode.INSTRUCT2, Mode.CONVERSION]
    return modes
