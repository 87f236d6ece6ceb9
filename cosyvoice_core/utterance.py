"""From a request to speak to utterances: one per text segment, each with all that the three stages need.

Both the offline synthesizer and the service plan with this, so the same request and seed give the same audio in
either. Knows no audio, no devices and no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from cosyvoice_core.config import LMConfig, SamplingConfig
from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import IntArray, Mode, UtteranceInputs, VoicePrompt, utterance_inputs
from cosyvoice_core.lm.prompt import MAX_RATIO, MIN_RATIO, length_bounds, uni_prompt
from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from cosyvoice_core.streamed import StreamedLimits, StreamedText
from cosyvoice_core.text.frontend import TextFrontEnd
from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.script import Language
from cosyvoice_core.voice.alignment import ChunkAlignment

MIN_SPEED, MAX_SPEED = 0.5, 2.0
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """What a user asks for: a text in a voice.

    mode None picks by what is given: an instruction, a transcript, a prompt without one, or a speaker alone.
    sampling None takes the checkpoint's own settings. language: of the text, where its letters do not tell.
    """

    text: str
    voice: VoicePrompt
    mode: Mode | None = None
    instruction: str = ""
    seed: int = 0
    speed: float = 1.0
    greedy: bool = False
    sampling: SamplingConfig | None = None
    lexicon: Lexicon = field(default_factory=Lexicon)
    language: Language | None = None

    def __post_init__(self) -> None:
        if not MIN_SPEED <= self.speed <= MAX_SPEED:
            raise InputError("speed", f"{self.speed} is out of range", f"{MIN_SPEED} to {MAX_SPEED}")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError("seed", f"{self.seed} is out of range", f"0 to {MAX_SEED}")
        if self.mode is Mode.INSTRUCT2 and not self.instruction.strip():
            raise InputError("instructions", "mode instruct2 needs an instruction", "a short sentence")
        if self.mode not in (None, Mode.INSTRUCT2) and self.instruction.strip():
            raise InputError("instructions", f"mode {self.mode} takes none", "mode instruct2, or none named")

    @property
    def effective_mode(self) -> Mode:
        if self.mode is not None:
            return self.mode
        if self.instruction.strip():
            return Mode.INSTRUCT2
        if len(self.voice.speech_tokens) == 0:
            return Mode.SFT
        return Mode.ZERO_SHOT if len(self.voice.transcript_ids) else Mode.CROSS_LINGUAL


@dataclass(frozen=True, slots=True)
class Utterance:
    """One segment, ready for the stages. `seed` is the segment's own, derived from the request's and `index`."""

    index: int
    text: str
    inputs: UtteranceInputs
    seed: int
    speed: float
    greedy: bool
    sampling: SamplingConfig
    min_tokens: int
    max_tokens: int

    def token_request(self, vocabulary: SpeechVocabulary, history: tuple[int, ...] = ()) -> TokenRequest:
        """What the language model is asked; `history` are tokens of this utterance that are known already."""
        return TokenRequest(
            prompt_ids=tuple(uni_prompt(vocabulary, self.inputs)),
            sampling=self.sampling,
            seed=self.seed,
            greedy=self.greedy,
            min_tokens=self.min_tokens,
            max_tokens=self.max_tokens,
            history=history,
        )

    def stream_request(self) -> StreamRequest:
        """What the language model is asked when the text is still being written (bi-stream).

        Speech per text is bounded as for a complete one; without the lower bound a short text may end unheard.
        """
        return StreamRequest(
            prompt_text_ids=tuple(self.inputs.lm_prompt_text_ids.tolist()),
            prompt_speech=tuple(self.inputs.lm_prompt_speech.tolist()),
            min_ratio=MIN_RATIO,
            max_ratio=MAX_RATIO,
            sampling=self.sampling,
            seed=self.seed,
            greedy=self.greedy,
        )


class UtterancePlanner:
    """Splits requests into utterances with one text front end."""

    def __init__(
        self,
        text: TextFrontEnd,
        lm: LMConfig,
        streamed: StreamedLimits | None = None,
        alignment: ChunkAlignment | None = None,
    ) -> None:
        """streamed: lengths of the utterances of a text that is still being written; alignment: of flow prompts."""
        self._text = text
        self._lm = lm
        self._streamed_limits = streamed or StreamedLimits()
        self._alignment = alignment

    def utterances(self, request: SpeechRequest) -> Iterator[Utterance]:
        """Segments in order, lazily, so that an hour of text is never held as tensors.

        Raises InputError when the text holds nothing that can be spoken, or the voice lacks what the mode needs.
        """
        mode = request.effective_mode
        instruction = self._ids(self._text.encode_instruction(request.instruction)) if mode is Mode.INSTRUCT2 else None
        spoken = 0
        for segment in self._text.segments(request.text, request.lexicon, request.language):
            text_ids = self._ids(self._text.encode(segment))
            inputs = utterance_inputs(mode, text_ids=text_ids, voice=request.voice, instruction_ids=instruction)
            least, most = length_bounds(len(text_ids))
            yield Utterance(
                index=spoken,
                text=segment,
                inputs=self._aligned(inputs),
                seed=segment_seed(request.seed, spoken),
                speed=request.speed,
                greedy=request.greedy,
                sampling=request.sampling or self._lm.sampling,
                min_tokens=least,
                max_tokens=most,
            )
            spoken += 1
        if spoken == 0:
            raise _nothing_to_say()

    def check_text(self, request: SpeechRequest) -> None:
        """Raises InputError when the text holds nothing that can be spoken, before its voice is known."""
        if next(self._text.segments(request.text, request.lexicon, request.language), None) is None:
            raise _nothing_to_say()

    def streamed(self, request: SpeechRequest) -> StreamedText:
        """Splitter of the request's text, which is still being written; `request.text` is not looked at."""
        return StreamedText(
            self._text.stream(request.lexicon, request.language), self._text.encode, self._streamed_limits
        )

    def streamed_utterance(self, request: SpeechRequest, index: int) -> Utterance:
        """Utterance number `index` of a text that is still being written. Raises InputError for an unfit voice."""
        mode = request.effective_mode
        instruction = self._ids(self._text.encode_instruction(request.instruction)) if mode is Mode.INSTRUCT2 else None
        inputs = utterance_inputs(
            mode, text_ids=(), voice=request.voice, instruction_ids=instruction, text_follows=True
        )
        _, most = length_bounds(self._streamed_limits.max_tokens)
        return Utterance(
            index=index,
            text="",
            inputs=self._aligned(inputs),
            seed=segment_seed(request.seed, index),
            speed=request.speed,
            greedy=request.greedy,
            sampling=request.sampling or self._lm.sampling,
            min_tokens=0,
            max_tokens=most,
        )

    def conversion(
        self, source_tokens: IntArray, voice: VoicePrompt, *, seed: int = 0, speed: float = 1.0, index: int = 0
    ) -> Utterance:
        """An utterance of a voice conversion: tokens of piece number `index` of the source, spoken in `voice`."""
        inputs = utterance_inputs(
            Mode.CONVERSION, text_ids=np.zeros(0, np.int32), voice=voice, source_tokens=source_tokens
        )
        count = len(source_tokens)
        return Utterance(
            index, "", self._aligned(inputs), segment_seed(seed, index), speed, False, self._lm.sampling, count, count
        )

    def transcript(self, text: str) -> tuple[str, IntArray]:
        """A prompt's transcript as the model wants it: normalised text and its ids."""
        normalised = self._text.normalise(text)
        return normalised, self._ids(self._text.encode(normalised))

    def _aligned(self, inputs: UtteranceInputs) -> UtteranceInputs:
        if self._alignment is None:
            return inputs
        tokens, mel = self._alignment.cut(inputs.flow_prompt_tokens, inputs.flow_prompt_mel)
        return replace(inputs, flow_prompt_tokens=tokens, flow_prompt_mel=mel)

    @staticmethod
    def _ids(ids: list[int]) -> IntArray:
        return np.asarray(ids, np.int32)


def _nothing_to_say() -> InputError:
    return InputError("input", "the text holds nothing that can be spoken", "letters or digits of any script")


def segment_seed(seed: int, index: int) -> int:
    """A seed per segment: neighbouring seeds and segments give unrelated streams (splitmix64 finaliser)."""
    mask = 2**64 - 1
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) & MAX_SEED
