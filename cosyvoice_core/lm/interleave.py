"""Bi-stream: speech while the text is still arriving, as a state machine over token ids.

The model was trained on blocks of 5 text and 15 speech tokens; this plan rebuilds that layout from text that
comes in any portions. Knows neither scores nor engines. Source: docs/model.md, "Bi-stream".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from cosyvoice_core.lm.plan import Action, Done, FinishReason, Predict, Wait, require_legal
from cosyvoice_core.lm.vocabulary import SpeechVocabulary


class Interleave:
    """Plan of one utterance in blocks of text and speech.

    The context begins as `[sos]` and the preamble. Prompt speech is laid out first, a block at a time, as text
    (the prompt's, then the arriving one) allows. After that each block is text_block text tokens, then speech
    until speech_block tokens are there or the model predicts fill. When the text has ended and no full block is
    left: remaining text, task, remaining prompt speech, then speech until eos. A text that ends without a single
    token is done at once. What is predicted depends on the
    text alone, never on the portions it came in, because a block is opened only when its text is complete.
    """

    def __init__(
        self,
        vocabulary: SpeechVocabulary,
        prompt_text_ids: Iterable[int] = (),
        prompt_speech: Iterable[int] = (),
        *,
        preamble_ids: Iterable[int] = (),
        text_block: int = 5,
        speech_block: int = 15,
        min_ratio: float = 0.0,
        max_ratio: float = 20.0,
    ) -> None:
        """Text ids are the tokenizer's own; ratios bound the speech tokens per text token, the prompt's excluded.

        preamble_ids: prompt text that is never interleaved (CosyVoice3: up to and with `<|endofprompt|>`).
        Raises InputError when an id is outside its vocabulary.
        """
        self.context: list[int] = [vocabulary.sos, *vocabulary.text(preamble_ids)]
        self.spoken: list[int] = []
        self._vocabulary = vocabulary
        self._text = deque(vocabulary.text(prompt_text_ids))
        self._prompt_speech = deque(vocabulary.speech(prompt_speech))
        self._text_block = text_block
        self._speech_block = speech_block
        self._min_ratio = min_ratio
        self._max_ratio = max_ratio
        self._text_tokens = 0
        self._ended = False
        self._needs_text = True
        self._in_block = 0
        self._final = False
        self._reason: FinishReason | None = None

    @property
    def queued(self) -> int:
        """Text and prompt speech tokens that are not in the context yet."""
        return len(self._text) + len(self._prompt_speech)

    @property
    def ended(self) -> bool:
        """Whether the text is known to be complete."""
        return self._ended

    def feed_text(self, ids: Iterable[int]) -> None:
        """More text has arrived. Raises InputError for an unknown id, ValueError after the end."""
        if self._ended:
            raise ValueError("text arrived after its end")
        merged = self._vocabulary.text(ids)
        self._text.extend(merged)
        self._text_tokens += len(merged)

    def end_text(self) -> None:
        """No more text will come."""
        self._ended = True

    def next(self) -> Action:
        if self._reason is not None:
            return Done(self._reason)
        if not self._final:
            if self._text_tokens == 0:
                return Done("length") if self._ended else Wait()
            self._lay_out_prompt()
            if self._open_block():
                return Predict(self._vocabulary.fill, self._speech_block - self._in_block)
            if not self._ended:
                return Wait()
            self._open_last_block()
        return self._last_block()

    def produced(self, id_: int) -> bool:
        require_legal(self.next(), id_, self._vocabulary)
        if id_ == self._vocabulary.eos:
            self._reason = "stop"
            return False
        if id_ == self._vocabulary.fill:
            self._needs_text = True
            return False
        self.context.append(id_)
        self.spoken.append(id_)
        self._in_block += 1
        return True

    def _lay_out_prompt(self) -> None:
        while self._prompt_speech and len(self._text) >= self._text_block:
            self._take_text(self._text_block)
            self._in_block = min(self._speech_block, len(self._prompt_speech))
            self.context.extend(self._prompt_speech.popleft() for _ in range(self._in_block))
            self._needs_text = self._in_block == self._speech_block

    def _open_block(self) -> bool:
        """Whether speech of a block can be predicted, after opening one if that is due and possible."""
        if self._prompt_speech:
            return False
        if not self._needs_text and self._in_block < self._speech_block:
            return True
        self._needs_text = True
        if len(self._text) < self._text_block:
            return False
        self._take_text(self._text_block)
        self._in_block = 0
        self._needs_text = False
        return True

    def _open_last_block(self) -> None:
        self._take_text(len(self._text))
        self.context.append(self._vocabulary.task)
        self.context.extend(self._prompt_speech)
        self._prompt_speech.clear()
        self._in_block = 0
        self._final = True

    def _last_block(self) -> Action:
        count = len(self.spoken)
        least, most = int(self._min_ratio * self._text_tokens), int(self._max_ratio * self._text_tokens)
        if count >= most:
            return Done("length")
        if count < least:
            return Predict(None, least - count)
        return Predict(self._vocabulary.eos, most - count)

    def _take_text(self, count: int) -> None:
        self.context.extend(self._text.popleft() for _ in range(count))
