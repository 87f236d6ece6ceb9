"""`!ref` expressions of a HyperPyYAML file, put in place of by what they name.

Knows the tree of plain values only, not the file nor the meaning of its keys. Arithmetic is limited to products.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cosyvoice_core.errors import CheckpointError

_MAX_TEXT = 4096
_MAX_NUMBER = 1e18
_PATH = re.compile(r"<([^<>]*)>")
_STEP = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]+\])*)$")
_LITERAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """An expression such as `<a[b]>`, `<a> * <b>` or `<folder>/name`, not looked up yet."""

    expression: str


def resolve_references(root: dict[str, object], max_depth: int) -> None:
    """Replace every Reference below `root` in place.

    Raises CheckpointError for a name that is not there, a reference that leads back to itself, or a tree that
    references make deeper than `max_depth`.
    """
    _Resolver(root, max_depth).run()


class _Resolver:
    def __init__(self, root: dict[str, object], max_depth: int) -> None:
        self._root = root
        self._max_depth = max_depth
        self._evaluating: set[int] = set()
        # A container is walked once however often it is shared: its id maps to the height found below it.
        self._heights: dict[int, int] = {}
        self._walking: set[int] = set()

    def run(self) -> None:
        self._walk(self._root, 0)

    def _walk(self, container: dict[str, object] | list[object], depth: int) -> int:
        """Resolve everything below and return how many levels that is."""
        if id(container) in self._walking:
            raise CheckpointError("a reference leads back to a value that contains it")
        height = self._heights.get(id(container))
        if depth + (height or 0) > self._max_depth:
            raise CheckpointError(f"references nest values deeper than {self._max_depth} levels")
        if height is not None:
            return height
        self._walking.add(id(container))
        keys = list(container) if isinstance(container, dict) else list(range(len(container)))
        height = 0
        for key in keys:
            value = self._child(container, key)
            if isinstance(value, (dict, list)):
                height = max(height, 1 + self._walk(value, depth + 1))
        self._walking.discard(id(container))
        self._heights[id(container)] = height
        return height

    def _child(self, container: dict[str, object] | list[object], key: object) -> object:
        """One entry of a container, its reference replaced on the way."""
        if isinstance(container, dict):
            name = str(key)
            value = container[name]
            if isinstance(value, Reference):
                value = container[name] = self._evaluate(value)
            return value
        index = int(str(key))
        value = container[index]
        if isinstance(value, Reference):
            value = container[index] = self._evaluate(value)
        return value

    def _evaluate(self, reference: Reference) -> object:
        if id(reference) in self._evaluating:
            raise CheckpointError(f"reference {reference.expression!r} leads back to itself")
        if len(self._evaluating) >= self._max_depth:
            raise CheckpointError(f"more than {self._max_depth} references in a row")
        self._evaluating.add(id(reference))
        value = self._expression(reference.expression.strip())
        self._evaluating.discard(id(reference))
        return value

    def _expression(self, text: str) -> object:
        whole = _PATH.fullmatch(text)
        if whole is not None:
            return self._look_up(whole[1])
        if len(text) > _MAX_TEXT:
            raise CheckpointError(f"reference {text[:80]!r}... is longer than {_MAX_TEXT} characters")
        factors = [self._factor(part.strip()) for part in text.split("*")]
        numbers = [factor for factor in factors if factor is not None]
        return self._interpolate(text) if len(numbers) < len(factors) else _product(numbers, text)

    def _factor(self, text: str) -> int | float | None:
        """A number written out or referred to; None for anything else."""
        if _LITERAL.fullmatch(text):
            return int(text) if text.lstrip("+-").isdecimal() and len(text) <= 18 else float(text)
        path = _PATH.fullmatch(text)
        value = self._look_up(path[1]) if path is not None else None
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def _interpolate(self, text: str) -> str:
        """Text with the referred words put in: `<folder>/name`."""

        def word(match: re.Match[str]) -> str:
            value = self._look_up(match[1])
            if not isinstance(value, (str, int, float)):
                raise CheckpointError(f"reference {text!r} puts a {type(value).__name__} into a text")
            return str(value)

        result = _PATH.sub(word, text)
        if len(result) > _MAX_TEXT:
            raise CheckpointError(f"reference {text[:80]!r} expands to more than {_MAX_TEXT} characters")
        return result

    def _look_up(self, path: str) -> object:
        steps = _STEP.match(path.strip())
        if steps is None:
            raise CheckpointError(f"reference <{path}> is not of the form <key[key]>")
        value: object = self._root
        for step in [steps[1], *re.findall(r"\[([^\[\]]+)\]", steps[2])]:
            if not isinstance(value, (dict, list)) or not _holds(value, step):
                raise CheckpointError(f"reference <{path}> names {step!r}, which is not there")
            value = self._child(value, step)
        return value


def _holds(container: dict[str, object] | list[object], step: str) -> bool:
    if isinstance(container, dict):
        return step in container
    return step.isdecimal() and len(step) < 9 and int(step) < len(container)


def _product(numbers: list[int | float], text: str) -> int | float:
    result: int | float = 1
    for number in numbers:
        result *= number
        if not abs(result) <= _MAX_NUMBER:
            raise CheckpointError(f"reference {text[:80]!r} is not a number of sensible size")
    return result
