"""What goes into the model: a voice, and the tensors of one utterance for each request mode.

Knows neither audio files nor tokenizers; `voice/` and `text/` make what is put together here.
Source: docs/model.md, "Request modes".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from cosyvoice_core.errors import InputError

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]


def _no_ids() -> IntArray:
    return np.zeros(0, np.int32)


class Mode(StrEnum):
    """How the voice and the text meet."""

    SFT = "sft"
    ZERO_SHOT = "zero_shot"
    CROSS_LINGUAL = "cross_lingual"
    INSTRUCT2 = "instruct2"
    CONVERSION = "vc"


@dataclass(frozen=True, slots=True)
class VoicePrompt:
    """A voice as the model sees it.

    speech_tokens: (P,) int32, 25 per second; mel: (2P, 80) float32 natural-log mel, 50 frames/s; speaker:
    (192,) float32; transcript: what is said in the prompt, already normalised; transcript_ids: its text ids.
    A voice known only by its speaker vector has P = 0 and no transcript.
    """

    speaker: FloatArray
    speech_tokens: IntArray = field(default_factory=_no_ids)
    mel: FloatArray = field(default_factory=lambda: np.zeros((0, 80), np.float32))
    transcript: str = ""
    transcript_ids: IntArray = field(default_factory=_no_ids)

    def __post_init__(self) -> None:
        if self.speaker.ndim != 1:
            raise ValueError(f"speaker must be a vector, got shape {self.speaker.shape}")
        if self.mel.ndim != 2 or self.speech_tokens.ndim != 1:
            raise ValueError(f"mel must be (frames, bins) and speech_tokens (P,), got {self.mel.shape}")
        if len(self.mel) != 2 * len(self.speech_tokens):
            raise ValueError(f"{len(self.speech_tokens)} prompt tokens need twice as many frames, got {len(self.mel)}")


@dataclass(frozen=True, slots=True)
class UtteranceInputs:
    """Model inputs of one text segment (or of one voice conversion, whose tokens are known already).

    All ids are int32 vectors; text ids are the tokenizer's own (not merged), speech ids 0..6560.
    """

    text_ids: IntArray
    lm_prompt_text_ids: IntArray
    lm_prompt_speech: IntArray
    flow_prompt_tokens: IntArray
    flow_prompt_mel: FloatArray
    speaker: FloatArray
    source_tokens: IntArray | None = None


def utterance_inputs(
    mode: Mode,
    *,
    text_ids: Sequence[int] | IntArray,
    voice: VoicePrompt,
    instruction_ids: Sequence[int] | IntArray | None = None,
    source_tokens: Sequence[int] | IntArray | None = None,
    text_follows: bool = False,
) -> UtteranceInputs:
    """Tensors of one utterance: which parts of the voice go to the language model and which to the flow decoder.

    | mode          | LM prompt text | LM prompt speech | flow prompt (tokens, mel) |
    |---------------|----------------|------------------|---------------------------|
    | sft           | -              | -                | -                         |
    | zero_shot     | transcript     | yes              | yes                       |
    | cross_lingual | -              | -                | yes                       |
    | instruct2     | instruction    | -                | yes                       |
    | vc            | LM is skipped: `source_tokens` are spoken | yes            |

    The speaker vector always comes along, so any voice serves sft; a voice that is nothing but its vector has no
    prompt to give and serves every mode but zero_shot. text_follows: the text is still being written.
    Raises InputError when the mode needs what is not there, and when it would leave out something that was asked for.
    """
    if mode is not Mode.INSTRUCT2 and instruction_ids is not None:
        raise InputError("instructions", f"mode {mode} takes none", "mode instruct2")
    if mode is not Mode.CONVERSION and source_tokens is not None:
        raise InputError("source_audio", f"mode {mode} takes none", "mode vc")
    text, prompt_text, source = _ids(text_ids), _no_ids(), None
    if mode is Mode.CONVERSION:
        source, text = _ids(source_tokens), _no_ids()
        if len(source) == 0:
            raise InputError("source_audio", "holds no speech tokens", "the recording to be spoken in another voice")
    elif len(text) == 0 and not text_follows:
        raise InputError("input", "the text holds nothing that can be spoken")
    if mode is Mode.INSTRUCT2:
        prompt_text = _ids(instruction_ids)
        if len(prompt_text) == 0:
            raise InputError("instructions", "mode instruct2 needs an instruction", "a short sentence")
    if mode is Mode.ZERO_SHOT:
        prompt_text = _ids(voice.transcript_ids)
        if len(voice.speech_tokens) == 0:
            raise InputError("voice", "has a speaker vector but no recording for zero_shot", "mode sft")
        if len(prompt_text) == 0:
            raise InputError(
                "prompt_text", "zero_shot needs the transcript of the prompt", "a transcript, or mode cross_lingual"
            )
    bare = VoicePrompt(voice.speaker, mel=voice.mel[:0])
    lm_voice = voice if mode is Mode.ZERO_SHOT else bare
    flow_voice = bare if mode is Mode.SFT else voice
    return UtteranceInputs(
        text_ids=text,
        lm_prompt_text_ids=prompt_text,
        lm_prompt_speech=lm_voice.speech_tokens,
        flow_prompt_tokens=flow_voice.speech_tokens,
        flow_prompt_mel=flow_voice.mel,
        speaker=voice.speaker,
        source_tokens=source,
    )


def _ids(values: Sequence[int] | IntArray | None) -> IntArray:
    return _no_ids() if values is None else np.asarray(values, np.int32).reshape(-1)
