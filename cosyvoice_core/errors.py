"""Errors a caller can act on. Knows nothing of HTTP: doors map these to their own status codes."""

from __future__ import annotations


class InputError(ValueError):
    """What the user sent cannot be used; says which field, what was wrong and what is allowed."""

    def __init__(self, field: str, problem: str, allowed: str | None = None) -> None:
        self.field = field
        self.problem = problem
        self.allowed = allowed
        super().__init__(f"{field}: {problem}" + (f" (allowed: {allowed})" if allowed else ""))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str | None]]:
        return type(self), (self.field, self.problem, self.allowed)


class CheckpointError(RuntimeError):
    """A model directory, a file in it or a tensor in a file is not what the architecture needs."""


class EngineError(RuntimeError):
    """Computation of one utterance failed (for example it produced a NaN); other utterances are unharmed."""
