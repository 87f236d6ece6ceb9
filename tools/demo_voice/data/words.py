"""Word lists of the training texts, and the regular forms made of them. Knows no sentences."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "words"
_VOWELS = "aeiou"


@cache
def word_lists(language: str) -> Mapping[str, tuple[str, ...]]:
    """Name -> words of every list of a language, forms included. Raises FileNotFoundError for an unknown language."""
    lists: dict[str, tuple[str, ...]] = {}
    for line in (_FOLDER / f"{language}.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, words = line.partition(":")
            known = lists.get(name.strip(), ())
            lists[name.strip()] = tuple(dict.fromkeys([*known, *(word.strip() for word in words.split(","))]))
    if language == "en":
        lists["nouns"] = tuple(plural(word) for word in lists["noun"])
        lists["doing"] = tuple(continuous(word) for word in lists["verb"])
        lists["did"] = tuple(past(word) for word in lists["verb"])
        lists["does"] = tuple(plural(word) for word in lists["verb"])
        lists["adverb"] = tuple(adverb(word) for word in lists["adjective"])
    return lists


def plural(word: str) -> str:
    """Regular English plural, which is also a verb's third person."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in _VOWELS:
        return f"{word[:-1]}ies"
    return f"{word}s"


def continuous(verb: str) -> str:
    """Regular form in -ing of a verb that doubles no letter."""
    return f"{verb[:-1]}ing" if verb.endswith("e") and not verb.endswith("ee") else f"{verb}ing"


def past(verb: str) -> str:
    """Regular past of a verb that doubles no letter."""
    if verb.endswith("e"):
        return f"{verb}d"
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return f"{verb[:-1]}ied"
    return f"{verb}ed"


def adverb(adjective: str) -> str:
    """Regular adverb."""
    if adjective.endswith("le"):
        return f"{adjective[:-1]}y"
    if adjective.endswith("ll"):
        return f"{adjective}y"
    if adjective.endswith("ic"):
        return f"{adjective}ally"
    if adjective.endswith("y") and len(adjective) > 3:
        return f"{adjective[:-1]}ily"
    return f"{adjective}ly"
