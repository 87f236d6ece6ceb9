"""Errors a caller can act on. Knows nothing of HTTP: doors map these to their own status codes."""

from __future__ import annotations

_MOST_FIELD = 100
_MOST_PROBLEM = 500


def shown(text: str, most: int) -> str:
    """What somebody sent, fit for a message or a line of a log: control characters escaped, cut at `most`."""
    plain = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text[:most]
    )
    return plain if len(text) <= most and len(plain) <= most else f"{plain[:most]}…"


class InputError(ValueError):
    """What the user sent cannot be used; says which field, what was wrong and what is allowed.

    Field and problem may quote the user: they are cut and escaped here.
    """

    def __init__(self, field: str, problem: str, allowed: str | None = None) -> None:
        self.field = shown(field, _MOST_FIELD)
        self.problem = shown(problem, _MOST_PROBLEM)
        self.allowed = allowed
        super().__init__(f"{self.field}: {self.problem}" + (f" (allowed: {allowed})" if allowed else ""))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str | None]]:
        return type(self), (self.field, self.problem, self.allowed)


class CheckpointError(RuntimeError):
    """A model directory, a file in it or a tensor in a file is not what the architecture needs."""


class EngineError(RuntimeError):
    """Computation of one utterance failed (for example it produced a NaN); other utterances are unharmed."""
