"""API keys: from a file and the environment, hashed only, and who is behind the one that a request shows.

A key is 256 random bits, so that its plain SHA-256 tells nobody anything and needs no slow hash. The file is looked at
again while the service runs; one that is broken then changes nothing, and says so in the log. Knows no HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.args import SecurityArgs
from deployments.ingress.callers import Caller, is_key_name

logger = logging.getLogger("ray.serve")

ENVIRONMENT = "COSYVOICE_API_KEYS"
"""Holds what a keys file would, for places where secrets come as variables."""

_LOOK_EVERY_S = 1.0
_MAX_FILE_BYTES = 4 * 2**20
_LEAST_LENGTH, _MOST_LENGTH, _LEAST_DIFFERENT = 32, 512, 12

_Stamp = tuple[int, int, int]


class KeysError(ValueError):
    """A keys file or variable cannot be used; says where and why, and never what a key or a hash is."""


def keys_are_set(args: SecurityArgs) -> bool:
    """Whether callers need a key."""
    return args.keys_file is not None or bool(os.environ.get(ENVIRONMENT))


class KeyEntry(BaseModel):
    """One key as it stands in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    priority: int = Field(default=0, ge=-100, le=100)
    max_streams: int | None = Field(default=None, ge=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    characters_per_minute: int | None = Field(default=None, ge=1)
    voices: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ("*",)

    def caller(self) -> Caller:
        return Caller(**self.model_dump(exclude={"sha256"}))


class _KeysFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: tuple[KeyEntry, ...]


class KeyRing:
    """All keys that are known, as far as their hashes tell."""

    def __init__(
        self, file: Path | None, variable: str | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """variable: the text of the environment variable. Raises KeysError."""
        self._file = file
        self._clock = clock
        self._fixed = read_keys(variable, f"environment variable {ENVIRONMENT}") if variable else ()
        self._stamp = _stamp_of(file) if file else None
        self._entries = self._all(self._read_file())
        self._looked = clock()

    @classmethod
    def from_settings(cls, args: SecurityArgs) -> KeyRing | None:
        """None when no keys are asked for. Raises KeysError for keys that cannot be used."""
        if not keys_are_set(args):
            return None
        return cls(args.keys_path(), os.environ.get(ENVIRONMENT))

    def caller_of(self, key: str) -> Caller | None:
        """Who shows this key. Compares with all there are, so that its time tells nothing."""
        self._look_again()
        digest = hash_of(key)
        found: Caller | None = None
        for entry, caller in self._entries:
            if hmac.compare_digest(entry.sha256, digest):
                found = caller
        return found

    def names(self) -> list[str]:
        return [entry.name for entry, _ in self._entries]

    def _look_again(self) -> None:
        """At most one look a second, and a read only when the file is another."""
        now = self._clock()
        if self._file is None or now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        stamp = _stamp_of(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._entries = self._all(self._read_file())
        except KeysError as error:
            logger.error("API keys are NOT renewed, those before stay in force: %s", error)
        else:
            logger.warning("API keys read again: %d", len(self._entries))

    def _read_file(self) -> tuple[KeyEntry, ...]:
        if self._file is None:
            return ()
        try:
            with self._file.open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
            text = data.decode("utf-8")
        except OSError as error:
            raise KeysError(f"{self._file}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise KeysError(f"{self._file}: no text") from None
        if len(data) > _MAX_FILE_BYTES:
            raise KeysError(f"{self._file}: larger than {_MAX_FILE_BYTES} bytes")
        return read_keys(text, str(self._file))

    def _all(self, from_file: tuple[KeyEntry, ...]) -> tuple[tuple[KeyEntry, Caller], ...]:
        entries = (*self._fixed, *from_file)
        for what, values in (("name", [one.name for one in entries]), ("hash", [one.sha256 for one in entries])):
            if len(set(values)) < len(values):
                raise KeysError(f"two keys have the same {what}")
        return tuple((entry, entry.caller()) for entry in entries)


def read_keys(text: str, place: str) -> tuple[KeyEntry, ...]:
    """Entries of a keys file (YAML, `keys: [...]`). Raises KeysError, which names `place`."""
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # Its own text shows the line, and with it what may be a key.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise KeysError(f"{place}: no YAML{where}") from None
    try:
        entries = _KeysFile.model_validate(data).keys
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # Names of unknown fields are left out: a key may have been put in a field's place.
        known = [str(part) for part in first["loc"] if isinstance(part, int) or part in _FIELDS]
        raise KeysError(f"{place}: {'.'.join(known) or 'the file'}: {first['msg']}") from None
    for entry in entries:
        if not is_key_name(entry.name):
            raise KeysError(f"{place}: a name is not of letters, digits, - and _, 40 at most")
    return entries


_FIELDS = frozenset((*KeyEntry.model_fields, "keys"))


def new_key() -> str:
    """A key of 256 random bits."""
    return f"cv-{secrets.token_urlsafe(32)}"


def weakness(key: str) -> str | None:
    """Why a key that somebody made up must not be used; None when nothing speaks against it."""
    if len(key) < _LEAST_LENGTH or len(key) > _MOST_LENGTH:
        return f"it has {len(key)} characters; allowed are {_LEAST_LENGTH} to {_MOST_LENGTH}"
    if not all("!" <= character <= "~" for character in key):
        return "it has characters that do not go into a header; allowed are printable ASCII characters but the blank"
    if len(set(key)) < _LEAST_DIFFERENT:
        return f"it has {len(set(key))} different characters; at least {_LEAST_DIFFERENT} are needed"
    return None


def hash_of(key: str) -> str:
    """As it stands in the file, SHA-256 in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp_of(file: Path) -> _Stamp | None:
    """Another one for another content; a file that is put in place of it, or behind a link, has a number of its own."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
