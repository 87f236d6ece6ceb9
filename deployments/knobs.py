"""`python -m deployments knobs`: every field of `AppArgs` as a table, so that the page about them cannot fall behind.

Knows no names: what a field is for stands where it is declared, in `args.py` and the classes it is made of.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deployments.args import AppArgs

BEGIN, END = "<!-- knobs: begin -->", "<!-- knobs: end -->"


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting: its dotted name under `args`, type, default and meaning."""

    name: str
    type: str
    default: str
    meaning: str


def knobs(args: type[BaseModel] = AppArgs, prefix: str = "") -> Iterator[Knob]:
    """All settings that are no group of settings, in the order of their declaration."""
    for name, field in args.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from knobs(annotation, f"{prefix}{name}.")
        else:
            yield Knob(f"{prefix}{name}", _type(annotation), _default(field), field.description or "")


def table() -> str:
    """The settings in Markdown."""
    rows = ["| setting | values | default | meaning |", "|---|---|---|---|"]
    for knob in knobs():
        cells = (f"`{knob.name}`", knob.type, f"`{knob.default}`", knob.meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def refreshed(page: str) -> str:
    """The page with its table made anew. Raises ValueError when it has no place for one."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def refresh(path: Path) -> bool:
    """Write the table into a page; returns whether that changed anything. Raises ValueError as `refreshed` does."""
    old = path.read_text(encoding="utf-8")
    new = refreshed(old)
    if new != old:
        path.write_text(new, encoding="utf-8")
    return new != old


def _type(annotation: Any) -> str:
    """In words of the config file."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(str(value) for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _type(part) for part in inner)
    if origin in (tuple, list, frozenset, set):
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"{_type(inner[0])} → {_type(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(str(member.value) for member in annotation)
    names = {int: "integer", float: "number", bool: "true, false", str: "text", Path: "path"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "-"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Enum):
        value = value.value
    return value if isinstance(value, str) and value else json.dumps(value, default=str)
