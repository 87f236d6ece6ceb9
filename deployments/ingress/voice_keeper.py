"""Who may save, replace, remove and take away voices, and how many. Knows no HTTP and no files.

Without keys, and by handle, all saved voices are everybody's. Behind a key a caller makes private voices, OWNER:NAME,
and may change these alone. The model's own voices are nobody's to change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import VoicePrompt
from cosyvoice_core.voice.encoder import PROMPT_FIELD, EncodedVoice
from cosyvoice_core.voice.quality import QualityReport
from cosyvoice_core.voice.saved import Flavour, dumped_voices
from deployments.ingress.callers import ANYONE, NAMESPACE, Caller
from deployments.ingress.voices import VoiceRegistry
from deployments.voices.args import VoicesArgs
from deployments.voices.catalogue import Catalogue
from deployments.voices.messages import NewVoice, VoiceDetails
from deployments.voices.names import check_full_name, owner_of
from deployments.voices.record import MAX_CONSENT_CHARS, MAX_TRANSCRIPT_CHARS, Quality, VoiceRecord, new_record
from deployments.voices.refusal import Reason, VoiceRefusedError

Encode = Callable[[bytes, str, Caller], Awaitable[EncodedVoice]]
"""Prompt audio and transcript to a voice, as for a request of this caller."""


class VoiceKeeper:
    """Saved voices as their callers may change them. All methods raise VoiceRefusedError that says why not."""

    def __init__(self, registry: VoiceRegistry, args: VoicesArgs, encode: Encode) -> None:
        self._registry = registry
        self._args = args
        self._encode = encode
        # Counting and writing belong together; of other replicas' writers the store keeps us apart by name.
        self._writing = asyncio.Lock()

    async def add(self, new: NewVoice) -> VoiceDetails:
        """Save a voice. Raises InputError for a name, text or recording that cannot be used.

        Everything that can be told before the recording is read is told then.
        """
        catalogue = self._catalogue()
        name = _own_name(new.name, new.caller)
        _check_length("transcript", new.transcript, MAX_TRANSCRIPT_CHARS)
        _check_length("consent", new.consent, MAX_CONSENT_CHARS)
        await self._check_place(catalogue, name, new)
        try:
            encoded = await self._encode(new.audio, new.transcript, new.caller)
        except InputError as error:
            field = "audio" if error.field == PROMPT_FIELD else error.field
            raise InputError(field, error.problem, error.allowed) from None
        record = new_record(name, encoded.prompt, consent=new.consent, quality=encoded.quality)
        async with self._writing:
            await self._check_place(catalogue, name, new)
            await catalogue.in_thread(catalogue.store.put, record, encoded.prompt, overwrite=new.overwrite)
            await catalogue.look_now()
        if name not in catalogue.listed:
            raise VoiceRefusedError(Reason.UNKNOWN, f"the voice {name!r} was removed by another caller at once")
        return self._details(record)

    async def details(self, name: str, caller: Caller = ANYONE) -> VoiceDetails:
        """Of a voice that the caller may use; the note on consent only to whom it belongs."""
        full = await self._found(name, caller)
        if full in self._registry.models_own:
            return VoiceDetails(self._registry.of_model(full), self._registry.models_own[full].transcript)
        record = await self._catalogue().record(full)
        return self._details(record, consent=_may_change(full, caller))

    async def remove(self, name: str, caller: Caller = ANYONE) -> str:
        """The full name of the voice that is no more."""
        catalogue = self._catalogue()
        full = await self._found(name, caller)
        if full in self._registry.models_own:
            raise VoiceRefusedError(Reason.FORBIDDEN, f"the voice {full!r} came with the model and stays")
        self._check_own(full, caller)
        async with self._writing:
            removed = await catalogue.in_thread(catalogue.store.remove, full)
            await catalogue.look_now()
        if not removed:
            _refuse_unknown(name)
        return full

    async def exported(self, name: str, flavour: Flavour, caller: Caller = ANYONE) -> bytes:
        """A `spk2info.pt` with this voice, under its name without owner."""
        full = await self._found(name, caller)
        self._check_own(full, caller)
        voice: VoicePrompt = await self._registry.prompt(full, caller)
        key = full.partition(NAMESPACE)[2] or full
        return await asyncio.to_thread(dumped_voices, {key: voice}, flavour)

    def _catalogue(self) -> Catalogue:
        if self._registry.catalogue is None:
            raise VoiceRefusedError(
                Reason.NO_STORE, "this service saves no voices (args.voices.url of the Serve config names no store)"
            )
        return self._registry.catalogue

    async def _found(self, name: str, caller: Caller) -> str:
        if self._registry.catalogue is not None:
            await self._registry.catalogue.look_now()
        try:
            return self._registry.check(name, caller)
        except InputError:
            _refuse_unknown(name)

    def _check_own(self, full: str, caller: Caller) -> None:
        if not _may_change(full, caller):
            raise VoiceRefusedError(Reason.FORBIDDEN, f"the voice {full!r} is not yours (allowed: your own)")

    async def _check_place(self, catalogue: Catalogue, name: str, new: NewVoice) -> None:
        if name in self._registry.models_own:
            raise VoiceRefusedError(Reason.EXISTS, f"the voice {name!r} came with the model (allowed: another name)")
        await catalogue.look_now()
        if name in catalogue.listed:
            if not new.overwrite:
                raise VoiceRefusedError(
                    Reason.EXISTS, f"there is a voice {name!r} already (allowed: overwrite=true, or another name)"
                )
            return
        if len(catalogue.listed) >= self._args.max_voices:
            raise VoiceRefusedError(Reason.TOO_MANY, f"the store is full (allowed: {self._args.max_voices} voices)")
        owner = owner_of(name)
        most = self._args.max_per_key
        if owner and sum(owner_of(one) == owner for one in catalogue.listed) >= most:
            raise VoiceRefusedError(Reason.TOO_MANY, f"{owner} has {most} voices or more (allowed: {most})")

    def _details(self, record: VoiceRecord, *, consent: bool = True) -> VoiceDetails:
        info = self._registry.of_record(record)
        return VoiceDetails(info, record.transcript, record.consent if consent else "", _report(record.quality))


def _may_change(full: str, caller: Caller) -> bool:
    return owner_of(full) == owner_of(caller.own_voice("any"))


def _own_name(name: str, caller: Caller) -> str:
    """The full name for a voice that this caller makes. Raises InputError, and VoiceRefusedError for another's."""
    full = check_full_name(name if NAMESPACE in name else caller.own_voice(name))
    if not _may_change(full, caller):
        raise VoiceRefusedError(Reason.FORBIDDEN, f"voices of {owner_of(full)!r} are not yours (allowed: your own)")
    return full


def _check_length(field: str, text: str, most: int) -> None:
    if len(text) > most:
        raise InputError(field, f"{len(text)} characters", f"at most {most} characters")


def _refuse_unknown(name: str) -> NoReturn:
    raise VoiceRefusedError(Reason.UNKNOWN, f"there is no voice {name[:80]!r}")


def _report(quality: Quality | None) -> QualityReport | None:
    return None if quality is None else QualityReport(**quality.model_dump())
