"""The `robust` profile: any string into sentences that can be read aloud, lazily. Knows no lengths.

A text is taken block by block, so its size does not matter; each sentence is read by the rules of its language.
"""

from __future__ import annotations

from collections.abc import Iterator

from cosyvoice_core.text import tags
from cosyvoice_core.text.addresses import ADDRESS, say_addresses
from cosyvoice_core.text.chinese import read_chinese
from cosyvoice_core.text.clean import clean
from cosyvoice_core.text.english import read_english
from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.number_reader import ReadNumbers
from cosyvoice_core.text.punctuation import is_speakable, take_ender, tidy
from cosyvoice_core.text.script import Language, language_of_sentence, language_of_text
from cosyvoice_core.text.sentences import blocks, sentences
from cosyvoice_core.text.split import Sentence

# Characters of a text's beginning that tell its language.
_SAMPLE = 4000


class RobustReader:
    """Texts into read sentences; read_numbers is the grammar for Chinese numbers."""

    def __init__(self, read_numbers: ReadNumbers) -> None:
        self._read_numbers = read_numbers

    def sentences(self, text: str, lexicon: Lexicon, language: Language | None = None) -> Iterator[Sentence]:
        """Sentences of `text` that hold something to be heard, tags masked. Never raises.

        language: of the text, where its letters do not tell; found by its beginning if not given.
        """
        language = language or language_of_text(own_words(text[:_SAMPLE]))
        for block in blocks(text):
            for sentence in sentences(prepared(block, lexicon)):
                # Asked twice: signs alone have names ("&"), but a text of signs says nothing; and a sentence may
                # hold nothing but what `tidy` drops.
                if is_speakable(sentence):
                    read = self._read(sentence, language_of_sentence(own_words(sentence), language))
                    if is_speakable(read.body):
                        yield read

    def _read(self, sentence: str, language: Language) -> Sentence:
        body, sign = take_ender(sentence)
        return Sentence(tidy(self.words(body, language), language), sign, language)

    def words(self, body: str, language: Language) -> str:
        """A sentence without its ender, or a part of one, with its addresses, numbers and signs as words."""
        body = say_addresses(body, language)
        if language is Language.ENGLISH:
            return read_english(body)
        return read_chinese(body, self._read_numbers) if language is Language.CHINESE else body


def own_words(text: str) -> str:
    """`text` without addresses, whose Latin letters say nothing of its language."""
    return ADDRESS.sub(" ", text)


def prepared(block: str, lexicon: Lexicon) -> str:
    """`block` in plain characters, control tokens gone, known words replaced, tags masked."""
    block = tags.mask(tags.neutralise(clean(block)))
    if not lexicon.entries:
        return block
    # A replacement is user text too, and may hold tags.
    return tags.mask(tags.neutralise(lexicon.apply(block)))
