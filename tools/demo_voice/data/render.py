"""One sentence in one voice, as an utterance with its features. Knows how a recording is trimmed, not where it goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosyvoice_core.audio.features import MEL_RATE, TOKENIZER_RATE, prompt_mel, whisper_log_mel
from cosyvoice_core.audio.resample import resample
from tools.demo_voice.data.alignment import SILENCE, TOKEN_RATE, phone_segments, word_segments
from tools.demo_voice.data.corpus import Features, FloatArray, Utterance
from tools.demo_voice.data.espeak import Espeak, Spoken
from tools.demo_voice.data.pitch import pitch_of
from tools.demo_voice.data.voices import Voice

_LEAD_S, _TAIL_S = 0.08, 0.15
_LEVEL, _PEAK = 0.08, 0.95
_DITHER = 2e-4
"""Silence of exact zeros has log features at their floor, far from everything else, and breaks recognisers."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a sentence is said: espeak's pitch (0..99) and words per minute."""

    pitch: int
    words_per_minute: int

    @classmethod
    def drawn(cls, voice: Voice, random: np.random.Generator) -> Manner:
        """Near the voice's own pitch and near 150 words per minute."""
        pitch = int(np.clip(voice.pitch + random.integers(-4, 5), 0, 99))
        return cls(pitch, round(150 * float(random.uniform(0.93, 1.07))))

    @classmethod
    def plain(cls, voice: Voice) -> Manner:
        return cls(voice.pitch, 150)


def render(
    espeak: Espeak, text: str, voice: Voice, manner: Manner, random: np.random.Generator, *, held_out: bool = False
) -> tuple[Utterance, Features]:
    """Say, trim, level and measure. Raises ValueError when nothing was said."""
    spoken = espeak.say(text, voice, pitch=manner.pitch, words_per_minute=manner.words_per_minute)
    first, last = _bounds(spoken)
    # Whole tokens: 22 050 Hz is 882 samples a token.
    per_token = spoken.rate // TOKEN_RATE
    tokens = -(-(last - first) // per_token)
    padded = np.zeros(tokens * per_token, np.float32)
    taken = spoken.samples[max(first, 0) : last].astype(np.float32) / 32768
    padded[max(-first, 0) : max(-first, 0) + len(taken)] = taken
    levelled = _levelled(padded) + _DITHER * random.standard_normal(len(padded)).astype(np.float32)
    wave24k = resample(levelled, spoken.rate, MEL_RATE)[: 960 * tokens]
    wave16k = resample(levelled, spoken.rate, TOKENIZER_RATE)[: 640 * tokens]
    end = first + tokens * per_token
    utterance = Utterance(
        text=text,
        voice=voice.name,
        tokens=tokens,
        phones=phone_segments(spoken, first, end),
        words=word_segments(spoken, text, first, end),
        held_out=held_out,
    )
    features = Features(
        wave=np.clip(wave24k, -1.0, 1.0),
        log_mel=np.ascontiguousarray(whisper_log_mel(wave16k).T),
        mel=prompt_mel(wave24k),
        pitch=pitch_of(wave24k),
    )
    return utterance, features


def _bounds(spoken: Spoken) -> tuple[int, int]:
    """First and last sample to keep; the first may lie before the recording, where silence is put."""
    sounding = [index for index, mark in enumerate(spoken.phones) if not mark.phone.startswith(SILENCE)]
    if not sounding:
        raise ValueError("espeak-ng said nothing")
    start = spoken.phones[sounding[0]].sample
    after = sounding[-1] + 1
    stop = spoken.phones[after].sample if after < len(spoken.phones) else len(spoken.samples)
    return start - int(_LEAD_S * spoken.rate), min(stop + int(_TAIL_S * spoken.rate), len(spoken.samples))


def _levelled(wave: FloatArray) -> FloatArray:
    """At the same loudness as every other sentence, without clipping."""
    loud = np.abs(wave) > 0.05 * np.abs(wave).max(initial=1e-6)
    level = float(np.sqrt(np.mean(wave[loud] ** 2))) if loud.any() else 1.0
    gain = min(_LEVEL / max(level, 1e-4), _PEAK / max(float(np.abs(wave).max()), 1e-4))
    return (wave * np.float32(gain)).astype(np.float32)
