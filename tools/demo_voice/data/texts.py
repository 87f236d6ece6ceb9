"""Sentences to train on and to judge by, made from templates and word lists. Knows no speech.

The same seed gives the same sentences. Held-out sentences are never among those to train on, though their phrases are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.number_reader import GrammarReader
from cosyvoice_core.text.robust import RobustReader
from cosyvoice_core.text.split import join
from tools.demo_voice.data.words import word_lists

_SLOT = re.compile(r"\{(\w+)\}")
_MOST_LETTERS, _MOST_LETTERS_OF_TWO = 90, 150
_TWO = 0.2
"""Share of texts of two sentences: what is served comes in pieces of up to 80 text tokens."""

ENGLISH = (
    "{greeting}, {name}. How are you {when}?",
    "{greeting}, my name is {name} {surname}.",
    "{greeting}! It is nice to meet you, {name}.",
    "{farewell}, {name}.",
    "Thank you, {title} {surname}. {farewell}.",
    "Where is {place}?",
    "How do I get from {place} to {place}?",
    "What time does the {noun} leave for {city}?",
    "Who {did} the {adjective} {noun}?",
    "Why did {name} {verb} {when}?",
    "Can you {verb} the {noun} {when}?",
    "Could you please {verb} a little more {adverb}?",
    "Do you like {mass} or {mass}?",
    "Is the {noun} {adjective} or {adjective}?",
    "When will {name} {verb} again?",
    "How many {nouns} are in the {noun}?",
    "Which {noun} did {title} {surname} {verb}?",
    "I have {number} {nouns} and {number} {nouns}.",
    "There are {number} {nouns} on the {noun}.",
    "The {noun} costs {number} dollars.",
    "It is {hour} o'clock in the morning.",
    "The train to {city} leaves at {hour} {minute}.",
    "My number is {digit}, {digit}, {digit}, {digit}.",
    "About {number} percent of the {nouns} were {adjective}.",
    "Please turn to page {number}.",
    "Today is {weekday}, {month} {day}.",
    "The meeting is on {weekday}, the {ordinal} of {month}.",
    "{name} was born on {month} {day}, {year}.",
    "In {year} the {noun} was still {adjective}.",
    "We will meet on {weekday} at {hour} o'clock.",
    "{press} {pressed} {topic} on {weekday}.",
    "{press} {pressed} that {topic} will come {when}.",
    "{press} from {country} {pressed} {topic}.",
    "Prices in {country} rose by {number} percent.",
    "Heavy rain {did} {adverb} near {city} {when}.",
    "The weather in {city} will be {weather} {when}.",
    "It was {weather} and {weather} all day.",
    "{name} and {name} {did} {adverb} in {place}.",
    "The {adjective} {noun} {did} near {place}.",
    "A {colour} {noun} stands beside the {noun}.",
    "She {does} {adverb} while he is {doing}.",
    "They {did} the {adjective} {nouns} {when}.",
    "We are {doing} because the {noun} is {adjective}.",
    "If you {verb}, the {noun} will {verb} too.",
    "The {noun}, the {noun} and the {noun} are {adjective}.",
    "{name} lives in {city}, not far from {place}.",
    "My {noun} is more {adjective} than your {noun}.",
    "Bring some {mass}, some {mass} and a {noun}.",
    "I never {verb} without {mass}.",
    "You should {verb} the {noun} {adverb}.",
    "{adjective}, {adverb}, {doing}, {did}.",
    "{noun}, {noun}, {verb} and {verb}.",
    "Turn left at the {noun}, then {verb} past {place}.",
    "The quick brown fox jumps over the lazy {noun}.",
    "This {noun} was made in {country} by {name} {surname}.",
    "Somebody {did} a {colour} {noun} to {title} {surname}.",
    "Nothing is as {adjective} as {doing} {when}.",
    "{plain} {modal} {base} the {noun} {when}.",
    "{plain} {negated} {base} {preposition} {whose} {noun}.",
    "{third} {went} {preposition} the {adjective} {noun}.",
    "{plain} {went} {which} {nouns} {preposition} {place}.",
    "{third} {often} {goes} {preposition} {whose} {noun}.",
    "{iam} {often} {going} {preposition} {place}.",
    "{iam} {adjective} {joining} {heis} {adjective}.",
    "{heis} a {noun} {preposition} {whose} {noun}.",
    "{iwill} {base} {whose} {noun} {when}.",
    "{iwill} {often} {verb} it {preposition} {name}.",
    "{ihave} {gone} {which} {adjective} {nouns}.",
    "{whose} {noun} {isnt} {adjective} {joining} {third} {went}.",
    "{question} {modal} {plain} {base} {preposition} the {noun}?",
    "{question} did {name} {base} {whose} {noun}?",
    "{question} is {whose} {noun} so {adjective}?",
    "Do {plain} {base} {which} {nouns} {when}?",
    "{name} {joining} {third} {went} {often}.",
    "If {plain} {went} to {city}, {iwill} {base} {mass}.",
    "{third} said that {plain} {negated} {base} {when}.",
    "Let's {base} {preposition} {place} {when}.",
    "I think {plain} {modal} {base} a {common}.",
    "There was {often} a {common} {preposition} the {common}.",
    "The {common} of the {common} {isnt} {common}.",
    "{common}, {common}, {common} and {common}.",
    "{common} {noun} {common} {preposition} {common}.",
    "{often} {common} {went} {common} {joining} {common}.",
    "{common} {base} {surname} {gone} {common} {nouns}.",
)
"""Templates; {word} names a list or something counted."""

EXAMPLES = (
    "Hello there. This is a small test.",
    "The quick brown fox jumps over the lazy dog.",
    "Good morning, how are you today?",
    "The weather is nice and the sun is warm.",
    "Please call me at five o'clock tomorrow.",
    "Nice to meet you.",
    "What time is it?",
    "The train leaves at seven thirty.",
    "My name is Anna and I live in Berlin.",
    "Thank you very much for your help.",
)
"""Everyday sentences that are always held out."""

Item = TypeVar("Item")
Counted = Callable[[np.random.Generator], str]
_COUNTED: dict[str, Counted] = {
    "number": lambda random: str(_one_of(random, (int(random.integers(2, 21)), int(random.integers(2, 1000))))),
    "digit": lambda random: str(random.integers(0, 10)),
    "hour": lambda random: str(random.integers(1, 13)),
    "minute": lambda random: str(random.integers(10, 60)),
    "day": lambda random: _ordinal(int(random.integers(1, 29))),
    "ordinal": lambda random: _ordinal(int(random.integers(1, 29))),
    "year": lambda random: str(random.integers(1900, 2030)),
}


@dataclass(frozen=True, slots=True)
class Texts:
    """Sentences as the language model reads them: numbers in words, an end mark at the end."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        shared = set(self.training) & set(self.held_out)
        if shared:
            raise ValueError(f"{len(shared)} sentences are both trained on and held out, such as {min(shared)!r}")

    @property
    def word_types(self) -> int:
        return len({word for text in self.training for word in re.findall(r"[a-z']+", text.lower())})


def make_texts(training: int, held_out: int, seed: int, language: str = "en") -> Texts:
    """So many different sentences of a language; the examples come first among the held-out ones.

    Raises ValueError for a language without templates.
    """
    if language not in TEMPLATES:
        raise ValueError(f"there are no templates for {language!r}; known: {', '.join(sorted(TEMPLATES))}")
    templates, examples = TEMPLATES[language]
    reader = SentenceReader()
    kept = list(dict.fromkeys(reader.read(text) for text in examples))
    wanted = max(held_out, len(kept)) + training
    random = np.random.default_rng([seed, 0])
    found = dict.fromkeys(kept)
    sentences = _sentences(templates, language, random)
    while len(found) < wanted:
        text = reader.read(next(sentences))
        if len(text) > _MOST_LETTERS:
            continue
        if random.random() < _TWO:
            text = f"{text} {reader.read(next(sentences))}"
        if len(text) <= _MOST_LETTERS_OF_TWO:
            found.setdefault(text)
    held = max(held_out, len(kept))
    ordered = list(found)
    return Texts(training=tuple(ordered[held:]), held_out=tuple(ordered[:held]))


TEMPLATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {"en": (ENGLISH, EXAMPLES)}
"""Templates and examples by language. Another language needs its word lists, and voices in `voices.py`."""


def _sentences(templates: tuple[str, ...], language: str, random: np.random.Generator) -> Iterator[str]:
    lists = word_lists(language)

    def filled(slot: re.Match[str]) -> str:
        counted = _COUNTED.get(slot[1])
        return counted(random) if counted else _one_of(random, lists[slot[1]])

    while True:
        text = _SLOT.sub(filled, _one_of(random, templates))
        yield text[0].upper() + text[1:]


class SentenceReader:
    """Sentences through the project's own front end."""

    def __init__(self) -> None:
        self._robust = RobustReader(GrammarReader())

    def read(self, text: str) -> str:
        return join(self._robust.sentences(text, Lexicon())).strip()


def _one_of(random: np.random.Generator, items: tuple[Item, ...]) -> Item:
    return items[int(random.integers(len(items)))]


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
