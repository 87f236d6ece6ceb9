"""Which language's reading rules a stretch of text gets, by the scripts it is written in. Knows no words."""

from __future__ import annotations

from enum import StrEnum

import regex


class Language(StrEnum):
    """Sets of reading rules; OTHER is everything whose numbers nobody here can read."""

    ENGLISH = "en"
    CHINESE = "zh"
    JAPANESE = "ja"
    OTHER = "other"

    @property
    def east_asian(self) -> bool:
        """Written without blanks, and measured in characters."""
        return self in (Language.CHINESE, Language.JAPANESE)


_CHINESE_BRANCH = regex.compile(r"[\u4e00-\u9fff]")
_HAN = regex.compile(r"\p{Han}")
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_LATIN = regex.compile(r"\p{Latin}")
_LATIN_WORD = regex.compile(r"[\p{Latin}\p{M}'’]+")
_LETTER = regex.compile(r"\p{L}")
_EAST_ASIAN_SIGN = regex.compile(r"[、。，！？；：（）「」『』《》【】]")

# A Chinese text may quote a kana or two (a brand); a Japanese one is full of them.
_JAPANESE_SHARE = 0.2


def reference_branch(text: str) -> Language:
    """The branch the original takes for a whole text: Chinese if any ideograph occurs, else English."""
    return Language.CHINESE if _CHINESE_BRANCH.search(text) else Language.ENGLISH


def language_of_text(sample: str) -> Language:
    """Language of a text by its beginning; what its letterless sentences are read in."""
    han, kana = len(_HAN.findall(sample)), len(_KANA.findall(sample))
    if kana and kana >= _JAPANESE_SHARE * (han + kana):
        return Language.JAPANESE
    language = _by_letters(sample, han)
    if language is None:
        return Language.CHINESE if _EAST_ASIAN_SIGN.search(sample) else Language.ENGLISH
    return language


def language_of_sentence(sentence: str, text_language: Language) -> Language:
    """Language of one sentence of a text in `text_language`.

    Kana anywhere makes it Japanese: Chinese number words must never get into a Japanese sentence. Ideographs
    make it Chinese in a Chinese text, however many foreign names it holds, and Japanese in a Japanese one.
    """
    if _KANA.search(sentence):
        return Language.JAPANESE
    han = len(_HAN.findall(sentence))
    language = _by_letters(sentence, han)
    if (han and text_language is Language.CHINESE) or (
        language is Language.CHINESE and text_language is Language.JAPANESE
    ):
        return text_language
    if language is None and text_language is Language.ENGLISH and _EAST_ASIAN_SIGN.search(sentence):
        return Language.CHINESE
    return language or text_language


def _by_letters(text: str, han: int) -> Language | None:
    """The script that prevails, an ideograph counting as much as a Latin word; None without letters."""
    letters, latin = len(_LETTER.findall(text)), len(_LATIN.findall(text))
    if not letters:
        return None
    other = letters - latin - han
    if han and han >= len(_LATIN_WORD.findall(text)) and han >= other:
        return Language.CHINESE
    return Language.OTHER if other > latin else Language.ENGLISH
