"""Speech tokens and mel of one prompt, cut to the same length. Source: docs/model.md, "Prompt features"."""

from __future__ import annotations

from cosyvoice_core.inputs import FloatArray, IntArray

FRAMES_PER_TOKEN = 2


def align(tokens: IntArray, mel: FloatArray) -> tuple[IntArray, FloatArray]:
    """Cut (P,) tokens and (T, 80) mel to n and 2n, n the most that both hold.

    Both count from the first sample, so only their ends differ, by less than one token for any one recording.
    """
    count = min(len(mel) // FRAMES_PER_TOKEN, len(tokens))
    return tokens[:count], mel[: FRAMES_PER_TOKEN * count]
