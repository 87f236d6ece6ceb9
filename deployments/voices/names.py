"""Names of saved voices, and the names of their files. Knows no store.

A file's name is made of a voice's name in base 32: whatever a user calls a voice, it is letters and digits there, the
same on systems that tell upper and lower case apart and on those that do not, and can be read back.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
import unicodedata
from dataclasses import dataclass

from cosyvoice_core.errors import InputError
from deployments.ingress.callers import NAMESPACE, is_key_name

MAX_CHARACTERS, MAX_BYTES = 64, 90
"""So that a file's name stays below the 255 bytes that file systems have for one, owner included."""

ALLOWED = f"1 to {MAX_CHARACTERS} letters, digits, '-', '_' and '.', beginning with a letter or digit"

_PUNCTUATION = frozenset("-_.")
_SIGNS = frozenset(("Mn", "Mc"))
"""Unicode categories of what stands on or beside a letter, such as the vowels of Hindi."""

_FILE = re.compile(
    r"(?P<key>[a-z2-7]+)\.(?:(?P<version>[0-9a-f]{14})\.)?(?P<id>[0-9a-f]{20})\.(?P<kind>json|safetensors)"
)
_LEFT_OVER = re.compile(r"tmp\.(?P<id>[0-9a-f]{20})")


def check_name(name: str, field: str = "name") -> str:
    """A name that a voice may be given, without owner. Raises InputError naming `field`."""
    whole = unicodedata.is_normalized("NFKC", name)
    letters = all(
        letter.isalnum() or letter in _PUNCTUATION or unicodedata.category(letter) in _SIGNS for letter in name
    )
    fits = len(name) <= MAX_CHARACTERS and len(name.encode("utf-8", "replace")) <= MAX_BYTES
    if not (name[:1].isalnum() and letters and whole and fits):
        raise InputError(field, f"{name[:100]!r} is no name for a voice", ALLOWED)
    return name


def check_full_name(name: str, field: str = "name") -> str:
    """The same for NAME or OWNER:NAME."""
    owner, separator, rest = name.partition(NAMESPACE)
    if separator and not is_key_name(owner):
        raise InputError(field, f"{owner[:100]!r} is no name of a key", f"OWNER{NAMESPACE}NAME, or a name of {ALLOWED}")
    check_name(rest if separator else name, field)
    return name


def owner_of(name: str) -> str:
    """Whose private voice this is; "" of one that everybody shares."""
    owner, separator, _ = name.partition(NAMESPACE)
    return owner if separator else ""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One version of one voice as its file's name tells: later versions are greater.

    version: microseconds since 1970, later than the version it replaced; id: of this writing, its tensors' too.
    """

    version: int
    id: str
    name: str

    @property
    def record_file(self) -> str:
        return f"{_key(self.name)}.{self.version:014x}.{self.id}.json"

    @property
    def tensors_file(self) -> str:
        return tensors_file(self.name, self.id)


def tensors_file(name: str, written: str) -> str:
    """Name of the file with a voice's tensors, from the id of its writing."""
    return f"{_key(name)}.{written}.safetensors"


def new_id() -> str:
    """Of one writing: when it was (milliseconds, so that what a crash leaves can be told to be old) and chance."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(4)}"


def left_over_file() -> str:
    """Name for a file that is still being written."""
    return f"tmp.{new_id()}"


def read_entry(file: str) -> Entry | None:
    """The entry whose record this file is; None of any other file."""
    found = _FILE.fullmatch(file)
    if found is None or found["kind"] != "json" or found["version"] is None:
        return None
    name = _named(found["key"])
    return None if name is None else Entry(int(found["version"], 16), found["id"], name)


def written_at(file: str) -> float | None:
    """When a file of tensors, or one that was never completed, was begun (seconds since 1970); None of others."""
    found = _LEFT_OVER.fullmatch(file) or _FILE.fullmatch(file)
    if found is None or file.endswith(".json"):
        return None
    return int(found["id"][:12], 16) / 1000


def _key(name: str) -> str:
    return base64.b32encode(name.encode()).decode("ascii").rstrip("=").lower()


def _named(key: str) -> str | None:
    try:
        name = base64.b32decode(key.upper() + "=" * (-len(key) % 8)).decode()
        return check_full_name(name)
    except ValueError:
        return None
