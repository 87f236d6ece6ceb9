"""Voices that can be asked for by name: those that came with the model, and those that callers have saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import Mode, VoicePrompt
from deployments.ingress.callers import ANYONE, NAMESPACE, Caller
from deployments.voices.catalogue import Catalogue, Listed
from deployments.voices.messages import VoiceInfo
from deployments.voices.record import VoiceRecord, created_at
from deployments.voices.refusal import Reason, VoiceRefusedError

_SHOWN = 20


class VoiceRegistry:
    """The model's voices, read once at start, and a catalogue of saved ones where there is a store.

    A caller may leave out its own namespace: NAME is its own voice of that name, if it has one, before everybody's. A
    name that no voice has may be another name of one.
    """

    def __init__(
        self,
        voices: Mapping[str, VoicePrompt],
        token_rate: int,
        catalogue: Catalogue | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """aliases: other names, each with the voice it means."""
        self._voices = dict(voices)
        self._aliases = dict(aliases or {})
        self._token_rate = token_rate
        self.catalogue = catalogue

    @property
    def models_own(self) -> Mapping[str, VoicePrompt]:
        """Nobody can change these."""
        return self._voices

    async def look(self, *names: str, caller: Caller = ANYONE) -> None:
        """Learn what was saved elsewhere; what else is asked here tells of the latest look.

        The store is not asked for names of the model's. Raises VoiceRefusedError when one of the names is not known and
        the store does not answer.
        """
        if self.catalogue is None or (names and caller == ANYONE and all(name in self._voices for name in names)):
            return
        if all(self._full_name(name, caller) is not None for name in names):
            await self.catalogue.look()
        else:
            await self.catalogue.look_now()

    def check(self, name: str, caller: Caller = ANYONE) -> str:
        """The full name. Raises InputError that lists the names there are for this caller; others do not exist."""
        found = self._full_name(name, caller)
        if found is None:
            raise InputError("voice", f"there is no voice {name[:80]!r}", self.names(caller))
        return found

    async def prompt(self, name: str, caller: Caller = ANYONE) -> VoicePrompt:
        """The voice itself. Raises InputError as `check` does, VoiceRefusedError for one that cannot be read."""
        full = self.check(name, caller)
        if full in self._voices:
            return self._voices[full]
        assert self.catalogue is not None
        try:
            return await self.catalogue.prompt(full)
        except VoiceRefusedError as error:
            if error.reason is not Reason.UNKNOWN:
                raise
            # Removed since it was checked.
            raise InputError("voice", f"there is no voice {name[:80]!r}", self.names(caller)) from None

    def infos(self, caller: Caller = ANYONE) -> list[VoiceInfo]:
        """Of the voices there are for this caller."""
        saved = self.catalogue.listed if self.catalogue else {}
        infos = [self.of_model(name) for name in self._voices if caller.may_use(name)]
        infos += [
            self._of_saved(listed)
            for name, listed in saved.items()
            if name not in self._voices and caller.may_use(name)
        ]
        return sorted(infos, key=lambda info: info.name)

    def of_record(self, record: VoiceRecord) -> VoiceInfo:
        """Of a saved voice by what is kept of it."""
        modes = _modes(record.tokens, record.transcript_tokens)
        return VoiceInfo(
            record.name, modes, record.tokens / self._token_rate, saved=True, created_at=created_at(record)
        )

    def names(self, caller: Caller) -> str:
        """For messages: the first few."""
        names = [info.name for info in self.infos(caller)]
        more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more

    def _full_name(self, name: str, caller: Caller) -> str | None:
        own = [] if NAMESPACE in name else [caller.own_voice(name)]
        for one in (*own, name, self._aliases.get(name, name)):
            if caller.may_use(one) and (one in self._voices or (self.catalogue and one in self.catalogue.listed)):
                return one
        return None

    def of_model(self, name: str) -> VoiceInfo:
        """Of a voice that came with the model."""
        voice = self._voices[name]
        return VoiceInfo(
            name,
            _modes(len(voice.speech_tokens), len(voice.transcript_ids)),
            len(voice.speech_tokens) / self._token_rate,
        )

    def _of_saved(self, listed: Listed) -> VoiceInfo:
        return VoiceInfo(
            listed.entry.name,
            () if listed.problem else _modes(listed.tokens, listed.transcript_tokens),
            listed.tokens / self._token_rate,
            saved=True,
            created_at=listed.created_at,
            problem=listed.problem,
        )


def _modes(tokens: int, transcript_tokens: int) -> tuple[str, ...]:
    modes: Iterable[Mode] = (
        Mode.SFT,
        *([Mode.ZERO_SHOT] if transcript_tokens else []),
        *([Mode.CROSS_LINGUAL, Mode.INSTRUCT2, Mode.CONVERSION] if tokens else []),
    )
    return tuple(mode.value for mode in modes)
