"""From a recording to a voice prompt: decode, check, measure, and compute all that the model needs of it.

Knows no text: a transcript and its ids are passed through. Source: docs/model.md, "Prompt features".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.features import MEL_RATE, TOKENIZER_RATE, prompt_mel
from cosyvoice_core.audio.limits import AudioLimits
from cosyvoice_core.audio.resample import resample
from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.inputs import FloatArray, IntArray, VoicePrompt
from cosyvoice_core.voice.alignment import align
from cosyvoice_core.voice.quality import QualityReport, measure_quality
from cosyvoice_core.voice.source import source_pieces
from cosyvoice_core.voice.speaker import SpeakerEncoder
from cosyvoice_core.voice.speech_tokenizer import MAX_SECONDS, SpeechTokenizer

PROMPT_FIELD = "prompt_audio"
SOURCE_FIELD = "source_audio"
SOURCE_LIMITS = AudioLimits(max_seconds=300.0, max_rate=96000)
"""What a recording to be spoken in another voice may be, if nothing else is said."""


@dataclass(frozen=True, slots=True)
class EncodedVoice:
    """A voice prompt and how good the recording was."""

    prompt: VoicePrompt
    quality: QualityReport


class VoiceEncoder:
    """Prompt audio to `VoicePrompt`, source audio to speech tokens. Holds no state between calls."""

    def __init__(
        self,
        tokenizer: SpeechTokenizer,
        speaker: SpeakerEncoder,
        limits: AudioLimits | None = None,
        source_limits: AudioLimits = SOURCE_LIMITS,
    ) -> None:
        """limits: of prompts, in any case at most 30 s; source_limits: of what is to be spoken in another voice."""
        limits = limits or AudioLimits()
        self._source_limits = source_limits
        self._limits = replace(limits, max_seconds=min(limits.max_seconds, MAX_SECONDS))
        self._tokenizer = tokenizer
        self._speaker = speaker

    @classmethod
    def from_directory(
        cls,
        path: Path,
        limits: AudioLimits | None = None,
        threads: int = 1,
        source_limits: AudioLimits = SOURCE_LIMITS,
    ) -> VoiceEncoder:
        """Encoder of a checkpoint directory. Raises CheckpointError when one of its two models is unusable."""
        files = CheckpointDirectory(path)
        return cls(
            SpeechTokenizer(files.speech_tokenizer, threads=threads),
            SpeakerEncoder(files.speaker_encoder, threads=threads),
            limits,
            source_limits,
        )

    def encode(
        self, audio: bytes | Path, transcript: str = "", transcript_ids: Sequence[int] | IntArray = ()
    ) -> EncodedVoice:
        """Features and quality of prompt audio; `transcript` is what is said in it, already normalised.

        Both sample rates come straight from the original one. Raises InputError (field "prompt_audio") before any
        model runs when the recording is outside the limits.
        """
        sound = decode_audio(audio, limits=self._limits, field=PROMPT_FIELD)
        quality = measure_quality(sound)
        wave16k = resample(sound.samples, sound.rate, TOKENIZER_RATE)
        tokens = self._tokenizer.tokens(wave16k, PROMPT_FIELD)
        mel = prompt_mel(resample(sound.samples, sound.rate, MEL_RATE))
        tokens, mel = align(tokens, mel)
        prompt = VoicePrompt(
            speaker=self._speaker.embedding(wave16k),
            speech_tokens=tokens,
            mel=mel,
            transcript=transcript,
            transcript_ids=np.asarray(transcript_ids, np.int32).reshape(-1),
        )
        return EncodedVoice(prompt, quality)

    def source_tokens(self, audio: bytes | Path) -> IntArray:
        """(P,) int32: speech tokens of audio to be spoken in another voice, in one piece of at most 30 s.

        Raises InputError (field "source_audio") when the recording is outside the limits.
        """
        return self.tokens(_at_tokenizer_rate(audio, self._limits))

    def source(self, audio: bytes | Path) -> list[FloatArray]:
        """A longer recording as pieces (N,) at 16 kHz, cut where it is quiet; raises InputError as above."""
        return source_pieces(_at_tokenizer_rate(audio, self._source_limits))

    def tokens(self, piece: FloatArray) -> IntArray:
        """(P,) int32: speech tokens of one piece of a source."""
        return self._tokenizer.tokens(piece, SOURCE_FIELD)


def _at_tokenizer_rate(audio: bytes | Path, limits: AudioLimits) -> FloatArray:
    sound = decode_audio(audio, limits=limits, field=SOURCE_FIELD)
    return resample(sound.samples, sound.rate, TOKENIZER_RATE)
