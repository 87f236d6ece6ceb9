"""Typed reading of nested settings: each value is named by its full path when it is missing or unfit.

Does not know which settings exist; `settings.py` asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from cosyvoice_core.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Section:
    """Part of a settings file. `source`: the file, `name`: where the part stands in it, such as `flow.encoder`."""

    values: Mapping[str, object]
    source: str
    name: str = ""

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def error(self, key: str, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.source}: {self.path(key)} {problem}")

    def section(self, key: str, *, optional: bool = False) -> Section:
        """The mapping under `key`; with `optional` an absent one is empty. Raises CheckpointError."""
        if optional and self.values.get(key) is None:
            return Section({}, self.source, self.path(key))
        value = self._get(key)
        if not isinstance(value, dict):
            raise self.error(key, f"is {_shown(value)}, expected a group of keys")
        return Section(value, self.source, self.path(key))

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number, at least `least`. Raises CheckpointError."""
        value = self._get(key, default)
        if not _is_integer(value) or value < least:
            raise self.error(key, f"is {_shown(value)}, expected a whole number of at least {least}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number. Raises CheckpointError."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(key, f"is {_shown(value)}, expected a number")
        return float(value)

    def integers(self, key: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A list of positive whole numbers. Raises CheckpointError."""
        return self._row(key, self._get(key, default))

    def integer_rows(self, key: str, default: tuple[tuple[int, ...], ...] | None = None) -> tuple[tuple[int, ...], ...]:
        """A list of lists of positive whole numbers. Raises CheckpointError."""
        value = self._get(key, default)
        if not isinstance(value, (list, tuple)):
            raise self.error(key, f"is {_shown(value)}, expected lists of whole numbers")
        return tuple(self._row(key, row) for row in value)

    def expect(self, key: str, supported: object) -> None:
        """An optional value that may only be `supported`. Raises CheckpointError for any other."""
        value = self.values.get(key, supported)
        if value != supported or isinstance(value, bool) != isinstance(supported, bool):
            raise self.error(key, f"is {_shown(value)}; only {_shown(supported)} is supported")

    def agree(self, key: str, needed: int, why: str) -> None:
        """An optional size that must be `needed`, because of `why`. Raises CheckpointError for any other."""
        value = self.values.get(key, needed)
        if value != needed:
            raise self.error(key, f"is {_shown(value)}, expected {needed} ({why})")

    def _get(self, key: str, default: object = None) -> object:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.error(key, "is missing")
        return value

    def _row(self, key: str, value: object) -> tuple[int, ...]:
        if isinstance(value, (list, tuple)) and value:
            numbers = [item for item in value if _is_integer(item) and item > 0]
            if len(numbers) == len(value):
                return tuple(numbers)
        raise self.error(key, f"is {_shown(value)}, expected a list of positive whole numbers")


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
