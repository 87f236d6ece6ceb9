"""Speech tokens and mel of one prompt, cut to the same length and to the flow's chunks.

Source: docs/model.md, "Prompt features" and "Streaming".
"""

from __future__ import annotations

from dataclasses import dataclass

from cosyvoice_core.inputs import FloatArray, IntArray

FRAMES_PER_TOKEN = 2


def align(tokens: IntArray, mel: FloatArray) -> tuple[IntArray, FloatArray]:
    """Cut (P,) tokens and (T, 80) mel to n and 2n, n the most that both hold.

    Both count from the first sample, so only their ends differ, by less than one token for any one recording.
    """
    count = min(len(mel) // FRAMES_PER_TOKEN, len(tokens))
    return tokens[:count], mel[: FRAMES_PER_TOKEN * count]


@dataclass(frozen=True, slots=True)
class ChunkAlignment:
    """Cuts flow prompts at their start so that a chunk of the flow's mask ends `first_tokens` tokens after them.

    The flow can give nothing of a chunk before all its tokens are there. Where a prompt ends within a chunk decides how
    many that are; up to `chunk_tokens` - 1 tokens (under a second) less of a voice make the wait the same for all.
    """

    chunk_tokens: int
    first_tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.first_tokens <= self.chunk_tokens:
            raise ValueError(f"first_tokens must be 1 to {self.chunk_tokens}, got {self.first_tokens}")

    def cut(self, tokens: IntArray, mel: FloatArray) -> tuple[IntArray, FloatArray]:
        """(P,) tokens and (2P, bins) mel without their start; whole where a third of them or more would go."""
        surplus = (len(tokens) + self.first_tokens) % self.chunk_tokens
        if 3 * surplus >= len(tokens):
            return tokens, mel
        return tokens[surplus:], mel[FRAMES_PER_TOKEN * surplus :]
