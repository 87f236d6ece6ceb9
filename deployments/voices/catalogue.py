"""What one replica knows of the saved voices: their list as of a moment ago, and those that were spoken with lately.

Nobody polls: the store is looked at when somebody asks, at most every half second for voices that are known, and always
for one that is not, so that a voice made at any replica can be used at once at all others. One look is one listing, off
the event loop; those who come while one is under way share the next. When the store does not answer, voices that are
known go on being served.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from cosyvoice_core.inputs import VoicePrompt
from deployments.voices.args import VoicesArgs
from deployments.voices.names import Entry
from deployments.voices.record import DamagedVoiceError, VoiceRecord, created_at
from deployments.voices.refusal import Reason, VoiceRefusedError
from deployments.voices.store import VoiceStore

logger = logging.getLogger("ray.serve")

_READERS = 4
_REPLACED_AT_MOST = 3
"""Times that a voice may be replaced while it is being read."""

_FOREVER_AGO = float("-inf")

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Listed:
    """A voice as it is listed: created_at in seconds since 1970; `problem` says what is wrong with a damaged one."""

    entry: Entry
    created_at: int = 0
    tokens: int = 0
    transcript_tokens: int = 0
    problem: str = ""


class Catalogue:
    """The voices of a store as one replica sees them; all methods are of its event loop."""

    def __init__(self, store: VoiceStore, args: VoicesArgs, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._args = args
        self._clock = clock
        self._listed: dict[str, Listed] = {}
        self._read_again: set[Entry] = set()
        self._loaded: OrderedDict[Entry, VoicePrompt] = OrderedDict()
        self._loaded_bytes = 0
        # A look that hangs must not keep voices from being read.
        self._look_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="voices-look")
        self._readers = ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="voices")
        self._looking: asyncio.Task[None] | None = None
        self._began = self._seen = self._tried = _FOREVER_AGO

    @property
    def listed(self) -> dict[str, Listed]:
        """By name, as of the latest look."""
        return self._listed

    @property
    def loaded_bytes(self) -> int:
        return self._loaded_bytes

    async def look(self) -> None:
        """Know what was there `look_every_s` ago, or what was known before when the store does not answer."""
        asked = self._clock()
        if asked - max(self._seen, self._tried) >= self._args.look_every_s:
            await self._seen_since(asked)

    async def look_now(self) -> None:
        """Know all that is there now. Raises VoiceRefusedError (UNAVAILABLE)."""
        if not await self._seen_since(self._clock()):
            raise VoiceRefusedError(Reason.UNAVAILABLE, "the store of voices does not answer; try again")

    async def record(self, name: str) -> VoiceRecord:
        """All that is kept of a listed voice but its tensors. Raises VoiceRefusedError."""
        try:
            return await self._record(self._get(name).entry)
        except FileNotFoundError:
            await self.look_now()
            self._get(name)
            raise VoiceRefusedError(Reason.UNAVAILABLE, f"the voice {name!r} was just replaced; try again") from None

    async def prompt(self, name: str) -> VoicePrompt:
        """A listed voice, from memory if it was used lately. Raises VoiceRefusedError, also for a damaged one."""
        for _ in range(_REPLACED_AT_MOST):
            entry = self._get(name).entry
            if entry in self._loaded:
                self._loaded.move_to_end(entry)
                return self._loaded[entry]
            try:
                prompt = await self.in_thread(self.store.prompt, entry, await self._record(entry))
            except DamagedVoiceError as error:
                self._note_problem(entry, str(error))
                raise _damaged(name, str(error)) from None
            except FileNotFoundError:
                # Removed or replaced since it was listed, or half of it is lost.
                await self.look_now()
                if self._get(name).entry == entry:
                    self._note_problem(entry, "a file of it is missing")
                    raise _damaged(name, "a file of it is missing") from None
            else:
                self._keep(entry, prompt)
                return prompt
        raise VoiceRefusedError(Reason.UNAVAILABLE, f"the voice {name!r} is being replaced all the time; try again")

    async def in_thread(self, work: Callable[..., Answer], *args: object, **options: object) -> Answer:
        """Something of the store's, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, partial(work, *args, **options))

    def _get(self, name: str) -> Listed:
        listed = self._listed.get(name)
        if listed is None:
            raise VoiceRefusedError(Reason.UNKNOWN, f"there is no voice {name!r}")
        return listed

    async def _record(self, entry: Entry) -> VoiceRecord:
        found = (await self.in_thread(self.store.records, [entry]))[entry]
        if isinstance(found, VoiceRecord):
            return found
        if isinstance(found, DamagedVoiceError):
            raise _damaged(entry.name, str(found))
        if isinstance(found, FileNotFoundError):
            raise found
        raise VoiceRefusedError(Reason.UNAVAILABLE, f"the voice {entry.name!r} cannot be read now; try again")

    async def _seen_since(self, moment: float) -> bool:
        """Wait for a look that began at this moment or later, whoever began it; False if it fails or is late."""
        while self._seen < moment:
            if self._looking is None:
                self._began = self._clock()
                self._looking = asyncio.create_task(self._look())
            began, looking = self._began, self._looking
            left = began + self._args.timeout_s - self._clock()
            await asyncio.wait({looking}, timeout=max(left, 0.0))
            if not looking.done() or (began >= moment and self._seen < moment):
                return False
        return True

    async def _look(self) -> None:
        began = self._began
        try:
            loop = asyncio.get_running_loop()
            listed, again = await loop.run_in_executor(self._look_thread, self._read, self._listed, self._read_again)
        except Exception as error:  # noqa: BLE001 - whatever it is, voices that are known are served
            logger.error("voices: what there is could not be looked at, those known are served: %s", error)
        else:
            self._listed, self._read_again, self._seen = listed, again, began
            current = {known.entry for known in listed.values()}
            for entry in [one for one in self._loaded if one not in current]:
                self._loaded_bytes -= _nbytes(self._loaded.pop(entry))
        finally:
            self._tried = began
            self._looking = None

    def _read(self, known: dict[str, Listed], again: set[Entry]) -> tuple[dict[str, Listed], set[Entry]]:
        """In a thread: one listing; records of what is new in it."""
        entries = self.store.entries()
        listed = {
            name: known[name]
            for name, entry in entries.items()
            if name in known and known[name].entry == entry and entry not in again
        }
        records = self.store.records([entry for name, entry in entries.items() if name not in listed])
        unread: set[Entry] = set()
        for entry, found in records.items():
            if isinstance(found, VoiceRecord):
                listed[entry.name] = _listed(entry, found)
            elif not isinstance(found, FileNotFoundError):
                listed[entry.name] = Listed(entry, problem=str(found) or type(found).__name__)
                if not isinstance(found, DamagedVoiceError):
                    unread.add(entry)
        return listed, unread

    def _note_problem(self, entry: Entry, problem: str) -> None:
        logger.error("voices: %s is damaged: %s", entry.name, problem)
        if entry.name in self._listed and self._listed[entry.name].entry == entry:
            self._listed = {**self._listed, entry.name: Listed(entry, problem=problem)}

    def _keep(self, entry: Entry, prompt: VoicePrompt) -> None:
        if entry not in self._loaded:
            self._loaded_bytes += _nbytes(prompt)
        self._loaded[entry] = prompt
        while self._loaded_bytes > self._args.cache_bytes and self._loaded:
            self._loaded_bytes -= _nbytes(self._loaded.popitem(last=False)[1])


def _listed(entry: Entry, record: VoiceRecord) -> Listed:
    return Listed(entry, created_at(record), record.tokens, record.transcript_tokens)


def _damaged(name: str, problem: str) -> VoiceRefusedError:
    return VoiceRefusedError(Reason.DAMAGED, f"the voice {name!r} is damaged: {problem}; remove it, or save it again")


def _nbytes(prompt: VoicePrompt) -> int:
    arrays = (prompt.speaker, prompt.speech_tokens, prompt.mel, prompt.transcript_ids)
    return sum(array.nbytes for array in arrays)
