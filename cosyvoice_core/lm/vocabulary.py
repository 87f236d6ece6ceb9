"""The one id space the speech-token LM reads and writes.

Speech ids come first, so an id that was sampled is fed back as it is; text ids follow behind an offset.
Knows numbers only: no tokenizer, no tensors. Source: docs/model.md, "Merged vocabulary".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cosyvoice_core.errors import InputError

COSYVOICE2_EXTRA_ROWS = 3
COSYVOICE3_EXTRA_ROWS = 200


@dataclass(frozen=True, slots=True)
class SpeechVocabulary:
    """Ids of one model family.

    speech_tokens: ids 0..speech_tokens-1 are sound. head_rows: ids the head can produce; those past the speech
    tokens never sound. sos, task: markers around the text. eos: ends the utterance. fill: asks for the next
    text block in bi-stream. text_offset: merged id of text id 0. head_bias: the head has a bias vector.
    """

    speech_tokens: int
    text_rows: int
    sos: int
    eos: int
    task: int
    fill: int
    head_rows: int
    text_offset: int
    head_bias: bool

    def __post_init__(self) -> None:
        if self.text_rows < 1 or self.speech_tokens < 1:
            raise ValueError(f"need text and speech ids, got {self.text_rows} and {self.speech_tokens}")
        if not self.speech_tokens < self.head_rows <= self.text_offset:
            raise ValueError("ids must be ordered: speech tokens, other head rows, text")
        if not all(self.speech_tokens <= marker < self.head_rows for marker in (self.eos, self.fill)):
            raise ValueError("eos and fill must be ids that the head can produce and that are not speech")
        if not all(self.speech_tokens <= marker < self.text_offset for marker in (self.sos, self.task)):
            raise ValueError("sos and task must lie between the speech tokens and the text")

    @classmethod
    def cosyvoice2(cls, text_rows: int, speech_tokens: int = 6561) -> SpeechVocabulary:
        """Three head rows past the speech (eos, an unused one, fill); sos and task are rows of their own."""
        return cls(
            speech_tokens=speech_tokens,
            text_rows=text_rows,
            eos=speech_tokens,
            fill=speech_tokens + 2,
            head_rows=speech_tokens + COSYVOICE2_EXTRA_ROWS,
            sos=speech_tokens + 3,
            task=speech_tokens + 4,
            text_offset=speech_tokens + 5,
            head_bias=True,
        )

    @classmethod
    def cosyvoice3(cls, text_rows: int, speech_tokens: int = 6561) -> SpeechVocabulary:
        """Two hundred head rows past the speech; all markers are among them and the head has no bias."""
        return cls(
            speech_tokens=speech_tokens,
            text_rows=text_rows,
            sos=speech_tokens,
            eos=speech_tokens + 1,
            task=speech_tokens + 2,
            fill=speech_tokens + 3,
            head_rows=speech_tokens + COSYVOICE3_EXTRA_ROWS,
            text_offset=speech_tokens + COSYVOICE3_EXTRA_ROWS,
            head_bias=False,
        )

    @property
    def input_rows(self) -> int:
        """Rows of the merged input table."""
        return self.text_offset + self.text_rows

    @property
    def marker_rows(self) -> int:
        """Input rows between the head's ids and the text: 2 (sos, task) in CosyVoice2, none in CosyVoice3."""
        return self.text_offset - self.head_rows

    @property
    def stop_ids(self) -> range:
        """Everything the head can produce that is not sound."""
        return range(self.speech_tokens, self.head_rows)

    def text(self, ids: Iterable[int]) -> list[int]:
        """Merged ids of tokenizer ids. Raises InputError when one has no row in the table."""
        raw = [int(id_) for id_ in ids]
        self._require(raw, self.text_rows, "text")
        return [id_ + self.text_offset for id_ in raw]

    def speech(self, ids: Iterable[int]) -> list[int]:
        """Speech ids, checked. Raises InputError when one is not a speech token."""
        raw = [int(id_) for id_ in ids]
        self._require(raw, self.speech_tokens, "speech tokens")
        return raw

    def merged(self, ids: Iterable[int]) -> list[int]:
        """Ids that are merged already, checked. Raises InputError when one has no row in the table."""
        raw = [int(id_) for id_ in ids]
        self._require(raw, self.input_rows, "prompt")
        return raw

    @staticmethod
    def _require(ids: list[int], rows: int, field: str) -> None:
        bad = next((id_ for id_ in ids if not 0 <= id_ < rows), None)
        if bad is not None:
            raise InputError(field, f"id {bad} is not in the model's vocabulary", f"0..{rows - 1}")
