"""HyperPyYAML files read as plain data: dicts, lists, strings and numbers, with references resolved.

Nothing is imported, called or constructed: what stands under `!new:`, `!name:`, `!apply:` and `!module:` is data like
any other. Does not know what the keys mean. Source: docs/model.md, "Checkpoint files".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml import events

from cosyvoice_core.checkpoint.references import Reference, resolve_references
from cosyvoice_core.errors import CheckpointError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 40
MAX_VALUES = 20_000
"""Values with every alias counted as often as it is used, so that nested aliases cannot grow without bound."""

_CORE = "tag:yaml.org,2002:"
_CORE_TAGS = frozenset(_CORE + name for name in ("str", "int", "float", "bool", "null", "seq", "map"))
_REFERENCE_TAGS = ("!ref", "!copy")
_INTEGER = re.compile(r"[-+]?\d{1,18}")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULLS = ("", "~", "null")


def read_plain_yaml(path: Path) -> dict[str, object]:
    """Read a HyperPyYAML file without executing anything in it.

    Keys are strings; a repeated key or anchor takes its last value; `!ref <a[b]>`, products such as
    `!ref <a> * <b>` and texts such as `!ref <folder>/name` are replaced by what they stand for.

    Raises CheckpointError when the file is missing, too large, not YAML, tagged with Python objects, or refers to
    what it does not hold.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from error
    if len(raw) > MAX_BYTES:
        raise CheckpointError(f"{path}: larger than {MAX_BYTES} bytes, which no settings file needs")
    try:
        root = _Builder().build(raw.decode("utf-8"))
        if not isinstance(root, dict):
            raise CheckpointError(f"expected keys and values at the top, found {type(root).__name__}")
        resolve_references(root, MAX_DEPTH)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return root


@dataclass(slots=True)
class _Open:
    """A list or mapping that is still being filled; `key` is the mapping key that waits for its value."""

    value: list[object] | dict[str, object]
    anchor: str | None
    size: int = 1
    key: str | None = None


@dataclass(frozen=True, slots=True)
class _Anchored:
    value: object
    size: int


class _Builder:
    """Turns the parser's flat event stream into values; no recursion, so depth costs nothing to refuse."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored] = {}
        self._root: object = None
        self._documents = 0

    def build(self, text: str) -> object:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            self._take(event)
        return self._root

    def _take(self, event: yaml.Event) -> None:
        match event:
            case events.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise CheckpointError("holds several YAML documents, expected one")
            case events.ScalarEvent():
                self._check_tag(event.tag)
                if self._awaits_key() and event.tag not in _REFERENCE_TAGS:
                    self._open[-1].key = event.value
                else:
                    self._close(_scalar(event), event.anchor, 1)
            case events.AliasEvent():
                if event.anchor not in self._anchors:
                    raise CheckpointError(f"alias *{event.anchor} has no finished anchor before it")
                target = self._anchors[event.anchor]
                self._close(target.value, None, target.size)
            case events.SequenceStartEvent() | events.MappingStartEvent():
                self._check_tag(event.tag)
                if len(self._open) >= MAX_DEPTH:
                    raise CheckpointError(f"nested deeper than {MAX_DEPTH} levels")
                empty: list[object] | dict[str, object] = {} if isinstance(event, events.MappingStartEvent) else []
                self._open.append(_Open(empty, event.anchor))
            case events.SequenceEndEvent() | events.MappingEndEvent():
                done = self._open.pop()
                self._close(done.value, done.anchor, done.size)

    def _check_tag(self, tag: str | None) -> None:
        if tag is None or tag == "!" or tag in _CORE_TAGS:
            return
        if not tag.startswith("!") or "python/" in tag:
            raise CheckpointError(f"tag {tag!r} asks for an object; settings must be plain data")

    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is None

    def _close(self, value: object, anchor: str | None, size: int) -> None:
        """Hang a finished value into the container around it."""
        if anchor is not None:
            self._anchors[anchor] = _Anchored(value, size)
        if not self._open:
            self._root = value
            return
        parent = self._open[-1]
        parent.size += size
        if parent.size > MAX_VALUES:
            raise CheckpointError(f"expands to more than {MAX_VALUES} values")
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key is None:
            raise CheckpointError("a key is not a plain word")
        elif parent.key == "<<":
            parent.key = None
            _merge(parent.value, value)
        else:
            parent.value[parent.key] = value
            parent.key = None


def _merge(mapping: dict[str, object], source: object) -> None:
    """YAML's merge key: entries of `source` that `mapping` does not have yet."""
    for part in source if isinstance(source, list) else [source]:
        if not isinstance(part, dict):
            raise CheckpointError("'<<' needs a mapping")
        for key, value in part.items():
            mapping.setdefault(key, value)


def _scalar(event: yaml.ScalarEvent) -> object:
    text: str = event.value
    if event.tag in _REFERENCE_TAGS:
        return Reference(text)
    if event.style is not None or event.tag == _CORE + "str":
        return text
    if text.lower() in _NULLS:
        return None
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return text
