"""What goes into the model: a voice, and the tensors of one utterance for each request mode.

Knows neither audio files nor tokenizers; `voice/` and `text/` make what is put together here.
Source: docs/model.md, "Request modes".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

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
