"""The text front end of a synthesizer: from a user's text to segments, and from segments to ids.

Source: docs/model.md, "Text front end".
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from cosyvoice_core.text.clean import join_surrogates
from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.number_reader import GrammarReader
from cosyvoice_core.text.reference import ReferenceFrontEnd
from cosyvoice_core.text.robust import RobustReader
from cosyvoice_core.text.script import Language
from cosyvoice_core.text.split import SplitLimits, Splitter, join
from cosyvoice_core.text.stream import TextStream
from cosyvoice_core.text.tags import END_OF_PROMPT, neutralise
from cosyvoice_core.text.tokenizer import Tokenizer


class Profile(StrEnum):
    """How texts are normalised and split.

    REFERENCE does what the original does, ROBUST reads any text sensibly, OFF hands texts through untouched.
    """

    REFERENCE = "reference"
    ROBUST = "robust"
    OFF = "off"


class TextFrontEnd:
    """Texts to segments and ids under one profile; safe to share between threads."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        profile: Profile = Profile.ROBUST,
        lexicon: Lexicon | None = None,
        limits: SplitLimits | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.profile = profile
        self.lexicon = lexicon or Lexicon()
        """Words of every text; may be exchanged at any time, texts that are being read keep theirs."""
        grammar = GrammarReader()
        self._robust = RobustReader(grammar)
        self._reference = ReferenceFrontEnd(self._count_tokens, grammar)
        self._splitter = Splitter(self._count_tokens, limits or SplitLimits())

    def normalise(self, text: str) -> str:
        """`text` as it is read, in one piece (for the transcript of a voice prompt)."""
        match self.profile:
            case Profile.OFF:
                return text
            case Profile.REFERENCE:
                return self._reference.normalise(self.lexicon.apply(text))
            case Profile.ROBUST:
                return join(self._robust.sentences(text, self.lexicon))

    def segments(self, text: str, lexicon: Lexicon | None = None, language: Language | None = None) -> Iterator[str]:
        """Segments of `text` in order; `lexicon` adds to, and overrides, the front end's own.

        language: what ROBUST reads numbers and signs in where the letters of the text do not tell.
        ROBUST: lazily and in bounded memory, for any string, each within the limits; none if nothing in the
        text can be spoken. REFERENCE: of any length, and an empty text is one empty segment.
        """
        words = self.lexicon.merged(lexicon) if lexicon else self.lexicon
        match self.profile:
            case Profile.OFF:
                return iter([text])
            case Profile.REFERENCE:
                return iter(self._reference.segments(words.apply(text)))
            case Profile.ROBUST:
                return self._splitter.segments(self._robust.sentences(text, words, language))

    def stream(self, lexicon: Lexicon | None = None, language: Language | None = None) -> TextStream:
        """A text that is still being written; `lexicon` and `language` as in `segments`.

        ROBUST reads it word by word; the other profiles take it as it is, as the original does with streamed text.
        """
        words = self.lexicon.merged(lexicon) if lexicon else self.lexicon
        return TextStream(self._robust if self.profile is Profile.ROBUST else None, words, language)

    def encode(self, segment: str) -> list[int]:
        """Ids of a segment or of a normalised transcript."""
        return self.tokenizer.encode(segment)

    def encode_instruction(self, text: str) -> list[int]:
        """Ids of an instruction, taken as written, with the end-of-prompt token behind it.

        ROBUST moves that token to the end wherever it stood, and drops other control tokens.
        """
        if self.profile is not Profile.ROBUST:
            return self.encode(text if END_OF_PROMPT in text else text + END_OF_PROMPT)
        return self.encode(neutralise(join_surrogates(text)).strip() + END_OF_PROMPT)

    def _count_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text))
