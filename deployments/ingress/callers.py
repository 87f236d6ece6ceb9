"""Who calls: the name behind an API key and what it may do. Knows neither keys nor doors nor how quotas are counted."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

NAMESPACE = ":"
"""`OWNER:NAME` is a private voice of the caller OWNER; voices without it are everybody's."""

_ANYONE = "anyone"


@dataclass(frozen=True, slots=True)
class Caller:
    """What one key may do; None is no limit.

    priority: under load higher ones are admitted first. max_streams: answers at once. voices: names or patterns
    (`*`, `?`, `[a-z]`); a pattern meets private voices only if it names their owner, as in `acme:*`.
    """

    name: str
    priority: int = 0
    max_streams: int | None = None
    requests_per_minute: int | None = None
    characters_per_minute: int | None = None
    voices: tuple[str, ...] = ("*",)

    @property
    def limited(self) -> bool:
        """Whether anything must be counted for it."""
        limits = (self.max_streams, self.requests_per_minute, self.characters_per_minute)
        return any(limit is not None for limit in limits)

    def may_use(self, voice: str) -> bool:
        """Its own private voices, and those that its patterns meet."""
        owner, name = _parts(voice)
        if owner and owner == self.name:
            return True
        patterns = map(_parts, self.voices)
        return any(owner == whose and fnmatchcase(name, pattern) for whose, pattern in patterns)

    def own_voice(self, name: str) -> str:
        """The full name of a voice that this caller makes, whose `name` holds no `:`; without keys all are shared."""
        return name if self.name == _ANYONE else f"{self.name}{NAMESPACE}{name}"


ANYONE = Caller(_ANYONE)
"""The caller where there are no keys, and who calls by handle."""


def is_key_name(name: str) -> bool:
    """Short, fit for logs and file names, and nobody else's: the rule for names of keys."""
    letters = name.replace("-", "").replace("_", "")
    return 0 < len(name) <= 40 and letters.isascii() and letters.isalnum() and name != _ANYONE


def _parts(voice: str) -> tuple[str, str]:
    owner, separator, name = voice.partition(NAMESPACE)
    return (owner, name) if separator else ("", voice)
