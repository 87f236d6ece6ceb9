"""Text that is still being written: characters in, text for the model out as early as it is certain.

What is released, and where it is cut, is decided character by character, so portions depend on the characters alone
and never on the pieces they arrived in; each is a whole word or more, so its ids can be taken by itself. Words are
read by the rules of the `robust` profile with what is known when they are complete: a word leaves when the blank
behind it arrives; a number waits for the word behind it (its unit), a stop for the first character behind it, scripts
without blanks for a few characters. Knows neither ids nor the lengths of utterances.
Source: docs/model.md, "Text front end".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import regex

from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.robust import RobustReader
from cosyvoice_core.text.script import Language
from cosyvoice_core.text.stream_writer import SentenceWriter
from cosyvoice_core.text.tags import neutralise

# Scripts written without blanks, and how many of their characters are held back at most.
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}--[\u0e40-\u0e44\u0ec0-\u0ec4]]",
    regex.V1,
)
_UNSPACED_HELD = 8
_NUMBER_NEAR = regex.compile(r"[\p{N}%°$€£¥]")
_PAUSE_END = regex.compile(r"[，、；：][\"”’」』）]*\Z")
_STOPS = r"\p{Sentence_Terminal}…।"
_CLOSERS = r"\"'”’」』）】》〉)\]}"
_STOP_END = regex.compile(rf"[{_STOPS}][{_STOPS}{_CLOSERS}]*\s*\Z")
_CLEAR_STOP_END = regex.compile(rf"[{_STOPS}--[.!?…]][{_STOPS}{_CLOSERS}]*\Z", regex.V1)
_STOP_OR_CLOSER = regex.compile(rf"[{_STOPS}{_CLOSERS}\p{{M}}\p{{Cf}}\p{{Cs}}]")
# What tells whether a stop before it ended a sentence; emoji and invisible characters do not.
_VISIBLE = regex.compile(r"[\p{L}\p{N}\p{P}\p{Sc}\p{Sm}]")
# A word whose reading may depend on the next: it holds a number, or no letter at all ("&", "=").
_NUMBERED = regex.compile(r".*[\p{N}$€£¥₹₩₽₺₿¢#]|[^\p{L}]+\Z")
# Short forms whose reading depends on the next word ("No. 5", "St. John").
_SHORT_FORM = regex.compile(r"(?i)(?<!\p{L})(?:st|nos?|figs?|vol|ch|sec|pp?|rs)\.\s*\Z")
_LAST_WORD = regex.compile(r"\S+")
_OPEN_MARKUP = regex.compile(r"<[\p{L}/][^<>]*\Z")
# Past these a stretch leaves as it is: at a blank, and anywhere.
_LONGEST_AT_BLANK = 64
_LONGEST = 256
_JOINED = regex.compile(r"[\p{M}\p{Cf}\p{Cs}]")


@dataclass(frozen=True, slots=True)
class TextPortion:
    """Text for the model that is certain; `ends_sentence` when a sentence is complete with it. Its leading blank
    parts it from the portion before and is none at the beginning of an utterance."""

    text: str
    ends_sentence: bool = False


class TextStream:
    """One text while it is being written. Not for two texts, nor for two threads at once."""

    def __init__(self, reader: RobustReader | None, lexicon: Lexicon, language: Language | None = None) -> None:
        """reader None: the text is taken as it is, control tokens excepted."""
        self._writer = SentenceWriter(reader, lexicon, language) if reader is not None else None
        self._beginnings = frozenset(word[:length] for word in lexicon.entries for length in range(1, len(word)))
        self._longest_beginning = max(map(len, self._beginnings), default=0)
        self._held = ""
        self._ended = False

    def push(self, text: str) -> list[TextPortion]:
        """More of the text has arrived; what is certain now. Raises ValueError after `flush`."""
        if self._ended:
            raise ValueError("text arrived after its end")
        portions: list[TextPortion] = []
        for character in text:
            if not self._held.isspace():
                if self._held and self._certain(character):
                    portions += self._release(character)
            elif character == " " and self._writer is not None:
                continue
            self._held += character
        return portions

    def flush(self) -> list[TextPortion]:
        """The text is complete: what was held back, and an ender if it has none."""
        if self._ended:
            return []
        self._ended = True
        portions = list(self._release(""))
        ender = self._writer.end() if self._writer else ""
        return [*portions, TextPortion(ender, True)] if ender else portions

    def _certain(self, following: str) -> bool:
        """Whether all that is held can be read now that `following` comes behind it."""
        held = self._held
        if len(held) >= _LONGEST and not _JOINED.match(following):
            return True
        if self._writer is None:
            return following.isspace() and not held[-1].isspace()
        if held[-1].isspace():
            return bool(_VISIBLE.match(following)) and not self._goes_on(held)
        if following.isspace():
            return not _STOP_END.search(held) and not self._goes_on(held)
        return self._certain_between(held, following)

    def _goes_on(self, held: str) -> bool:
        """Whether the word behind a blank may change how the last word is read."""
        if _OPEN_MARKUP.search(held):
            return True
        return len(held) < _LONGEST_AT_BLANK and bool(
            _NUMBERED.match(_LAST_WORD.findall(held)[-1])
            or _SHORT_FORM.search(held)
            or self._may_grow(held.rstrip() + " ")
        )

    def _certain_between(self, held: str, following: str) -> bool:
        """In a script without blanks, or at its border."""
        if _STOP_OR_CLOSER.match(following):
            return False
        unspaced = bool(_UNSPACED.match(following))
        if _CLEAR_STOP_END.search(held) or (unspaced and _STOP_END.search(held)):
            return True
        if not unspaced or self._may_grow(held):
            return False
        if _PAUSE_END.search(held):
            return True
        return len(held) >= _UNSPACED_HELD and bool(_UNSPACED.match(held[-1])) and not _NUMBER_NEAR.search(held[-3:])

    def _may_grow(self, text: str) -> bool:
        """Whether `text` ends in the beginning of a longer word of the lexicon."""
        lowered = text[-self._longest_beginning :].lower() if self._beginnings else ""
        return any(lowered[start:] in self._beginnings for start in range(len(lowered)))

    def _release(self, following: str) -> Iterator[TextPortion]:
        held, self._held = self._held, ""
        if self._writer is None:
            text = neutralise(held)
            if text.strip():
                yield TextPortion(text, bool(_STOP_END.search(text)))
            return
        if held[-1:].isspace():
            self._held = " "
        for text, ends_sentence in self._writer.write(held, following):
            if text:
                yield TextPortion(text, ends_sentence)
