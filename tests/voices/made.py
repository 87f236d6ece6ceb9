"""Voices made of numbers, for tests of how they are kept."""

from __future__ import annotations

import numpy as np

from cosyvoice_core.inputs import VoicePrompt
from cosyvoice_core.voice.quality import QualityReport

QUALITY = QualityReport(3.0, -20.0, 0.0, 0.25, 31.5, ("noisy",))


def made_prompt(seed: int = 0, tokens: int = 40, transcript: str = "what is said") -> VoicePrompt:
    """Of the sizes that the model takes, with speech tokens that small checkpoints have too."""
    random = np.random.default_rng(seed)
    return VoicePrompt(
        speaker=random.standard_normal(192).astype(np.float32),
        speech_tokens=random.integers(0, 1000, tokens).astype(np.int32),
        mel=random.standard_normal((2 * tokens, 80)).astype(np.float32),
        transcript=transcript if tokens else "",
        transcript_ids=np.arange(5 if tokens and transcript else 0, dtype=np.int32),
    )


def same(one: VoicePrompt, other: VoicePrompt) -> bool:
    """Equal in every value and type."""
    arrays = ("speaker", "speech_tokens", "mel", "transcript_ids")
    pairs = [(getattr(one, name), getattr(other, name)) for name in arrays]
    return one.transcript == other.transcript and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)
