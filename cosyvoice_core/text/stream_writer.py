"""Stretches of a growing text, read one after another into the text that the model is given.

Keeps what the next stretch needs of those before it: the language, the sentence it belongs to, the pause that is due.
Knows no ids and does not decide where stretches are cut.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.punctuation import ender_of, is_speakable, take_ender, tidy
from cosyvoice_core.text.robust import RobustReader, own_words, prepared
from cosyvoice_core.text.script import Language, language_of_sentence, language_of_text
from cosyvoice_core.text.sentences import sentences
from cosyvoice_core.text.tags import MASKS, unmask

# Characters of the text so far that tell its language.
_SAMPLE = 400
# A word that stands before and behind a stretch while its signs are tidied, so that pauses at its ends survive.
_FENCE = "Q"
_PAUSES_AND_BLANKS = ",;:，、；：،؛ "
# What the word before it may make another word of: numbers, and "St." behind a street's name.
_BY_CONTEXT = regex.compile(r"\d|\bSt\b")
_LETTER = regex.compile(r"\p{L}")
_TAG = regex.compile(rf"[{MASKS}]")
# Written without a blank to either side.
_TIGHT = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}，、；：。？！]")


class SentenceWriter:
    """Writes one text: `write` for each stretch in order, then `end`."""

    def __init__(self, reader: RobustReader, lexicon: Lexicon, language: Language | None = None) -> None:
        """language: of the text, where its letters do not tell; found by what has come if not given."""
        self._given = language
        self._reader = reader
        self._lexicon = lexicon
        self._sample = ""
        self._text_language = self._language = language or Language.ENGLISH
        self._before = ""
        self._pause = ""
        self._last = ""
        self._open = False
        self._heard = False

    def write(self, stretch: str, following: str) -> Iterator[tuple[str, bool]]:
        """Text of `stretch`, and whether a sentence ends with it; `following` is the character that came behind."""
        inner = stretch.strip()
        lead = stretch[: len(stretch) - len(stretch.lstrip())]
        trail = stretch[len(stretch.rstrip()) :]
        if "\n" in lead and (lead.count("\n") > 1 or not (self._pause or inner[:1].islower())):
            yield self.end(), True
        plain = prepared(inner, self._lexicon).strip()
        parts = sentences(f"{self._before} {plain}{trail}{following}")
        ended = parts[-1:] == [following] or not following
        spoken = sentences(f"{self._before} {plain}")
        if self._before and spoken:
            spoken[0] = spoken[0].removeprefix(self._before).strip()
        for index, part in enumerate(spoken):
            yield self._write(part, closes=ended or index + 1 < len(spoken), separated=bool(lead) or index > 0)

    def end(self) -> str:
        """The ender of a sentence that has none."""
        return self._close(".")

    def _write(self, part: str, *, closes: bool, separated: bool) -> tuple[str, bool]:
        self._note_language(part)
        body, sign = take_ender(part) if closes else (part, ".")
        text = ""
        if self._open or is_speakable(part) or _TAG.search(part):
            text = self._joined(self._signs(self._words(body)), separated)
            self._heard = self._heard or is_speakable(text)
        self._before = "" if closes else (part.split() or [""])[-1]
        ender = self._close(sign) if closes else ""
        return unmask(text) + ender, bool(ender)

    def _note_language(self, part: str) -> None:
        words = own_words(part)
        if _LETTER.search(words):
            self._sample = f"{self._sample} {words}"[-_SAMPLE:]
            given = self._given
            self._text_language = language_of_sentence(self._sample, given) if given else language_of_text(self._sample)
        self._language = language_of_sentence(words, self._text_language)

    def _words(self, body: str) -> str:
        """`body` in words; numbers and streets as the word before makes them ("in 1850", "May 5")."""
        alone = self._reader.words(body, self._language)
        if not self._before or self._language is not Language.ENGLISH or not _BY_CONTEXT.search(body):
            return alone
        before = self._reader.words(self._before, self._language)
        together = self._reader.words(f"{self._before} {body}", self._language)
        return together[len(before) :].lstrip() if together.startswith(f"{before} ") else alone

    def _signs(self, words: str) -> str:
        """`words` with the signs the model knows, pauses at the ends included."""
        front = f"{_FENCE} " if self._open else ""
        tidied = tidy(f"{front}{words} {_FENCE}", self._language)
        return tidied[len(front.rstrip()) : -len(_FENCE)].strip()

    def _joined(self, text: str, separated: bool) -> str:
        """`text` behind what was written, with the pause and the blank that belong between."""
        core = text.strip(_PAUSES_AND_BLANKS)
        start = text.find(core) if core else len(text)
        pause = self._pause or text[:start].strip()[:1] if self._open else ""
        if not core:
            self._pause = pause
            return ""
        neighbour = pause or self._last
        blank = neighbour and (separated or pause) and not (_TIGHT.match(core[0]) or _TIGHT.match(neighbour))
        self._pause = text[start + len(core) :].strip()[:1]
        self._last = core[-1]
        self._open = True
        return pause + (" " if blank else "") + core

    def _close(self, sign: str) -> str:
        """The ender of the open sentence; nothing if nothing of it can be heard."""
        ender = ender_of(self._language, sign) if self._heard else ""
        self._pause, self._before, self._last = "", "", ender or self._last
        self._open = self._heard = False
        return ender
