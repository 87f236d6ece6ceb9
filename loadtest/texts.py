"""The texts that are spoken: shipped ones by language and length, or a folder of one's own in the same form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from loadtest.errors import ScenarioError

SHIPPED = Path(__file__).parent / "prompts"
LENGTHS = ("short", "sentence", "paragraph", "long")


class Texts:
    """Texts by language (the file's name) and length, in the order of the file."""

    def __init__(self, texts: Mapping[str, Mapping[str, tuple[str, ...]]]) -> None:
        self._texts = {language: dict(lengths) for language, lengths in texts.items()}

    @classmethod
    def from_directory(cls, folder: Path = SHIPPED) -> Texts:
        """Read `LANGUAGE.yaml` files, each a mapping of length to a list of texts. Raises ScenarioError."""
        files = sorted(folder.glob("*.yaml"))
        if not files:
            raise ScenarioError(f"{folder}: no texts here; wanted files such as en.yaml")
        return cls({file.stem: _read(file) for file in files})

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self._texts)

    def of(self, language: str, length: str) -> tuple[str, ...]:
        """Raises ScenarioError that lists what there is."""
        try:
            return self._texts[language][length]
        except KeyError:
            there = ", ".join(f"{name}: {'/'.join(lengths)}" for name, lengths in self._texts.items())
            raise ScenarioError(f"no texts of language {language!r} and length {length!r}; there are {there}") from None


def _read(file: Path) -> dict[str, tuple[str, ...]]:
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ScenarioError(f"{file}: not valid YAML ({error})") from None
    if not isinstance(data, dict) or not data:
        raise ScenarioError(f"{file}: must map lengths ({', '.join(LENGTHS)}) to lists of texts")
    for length, texts in data.items():
        if length not in LENGTHS:
            raise ScenarioError(f"{file}: unknown length {length!r}; allowed: {', '.join(LENGTHS)}")
        if (
            not isinstance(texts, list)
            or not texts
            or not all(isinstance(text, str) and text.strip() for text in texts)
        ):
            raise ScenarioError(f"{file}: {length} must be a list of texts, none of them empty")
    return {length: tuple(text.strip() for text in texts) for length, texts in data.items()}
