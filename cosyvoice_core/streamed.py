"""A text that is still being written, as text ids of one utterance after another.

An utterance of streamed text is one bi-stream sequence of the language model; a long text must become several, or
it would outgrow the model's context and the flow's longest input. Where one ends depends on the characters alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cosyvoice_core.text.stream import TextPortion, TextStream


@dataclass(frozen=True, slots=True)
class StreamedLimits:
    """Text tokens of one utterance: it ends with the sentence that reaches `sentence_tokens`, and at `max_tokens`
    wherever it is. At up to 20 speech tokens a text token the default stays below 300 s of sound."""

    sentence_tokens: int = 60
    max_tokens: int = 200

    def __post_init__(self) -> None:
        if not 1 <= self.sentence_tokens <= self.max_tokens:
            raise ValueError(f"sentence_tokens must be in 1..{self.max_tokens}, got {self.sentence_tokens}")


@dataclass(frozen=True, slots=True)
class UtteranceText:
    """Text ids of utterance number `index`, behind those it has already; `last` when it is complete."""

    index: int
    ids: tuple[int, ...]
    last: bool = False


class StreamedText:
    """Splits one text; `push` its pieces in order, then `flush`."""

    def __init__(self, stream: TextStream, encode: Callable[[str], list[int]], limits: StreamedLimits) -> None:
        self._stream = stream
        self._encode = encode
        self._limits = limits
        self._index = 0
        self._count = 0

    def push(self, text: str) -> list[UtteranceText]:
        """Ids that are certain now. Raises ValueError after `flush`."""
        return list(self._take(self._stream.push(text)))

    def flush(self) -> list[UtteranceText]:
        """The text is complete."""
        texts = list(self._take(self._stream.flush()))
        return [*texts, self._close()] if self._count else texts

    def _take(self, portions: Iterable[TextPortion]) -> Iterator[UtteranceText]:
        for portion in portions:
            ids = self._encode(portion.text)
            if self._count and self._count + len(ids) > self._limits.max_tokens:
                yield self._close()
            if not self._count:
                ids = self._encode(portion.text.lstrip())
            for start in range(0, len(ids), self._limits.max_tokens):
                if start:
                    yield self._close()
                part = tuple(ids[start : start + self._limits.max_tokens])
                self._count += len(part)
                yield UtteranceText(self._index, part)
            if portion.ends_sentence and self._count >= self._limits.sentence_tokens:
                yield self._close()

    def _close(self) -> UtteranceText:
        closed = UtteranceText(self._index, (), last=True)
        self._index += 1
        self._count = 0
        return closed
