"""One stream through the flow by itself: tokens in pieces of any size, mel frames out, nothing computed twice.

Equals `FlowModel.mel(..., streaming=True, finalize=True)` up to float rounding. Many streams together are the business
of `scheduler`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cosyvoice_core.flow.memory import FlowMemory, form_within, page_bytes
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.noise import MAX_FRAMES
from cosyvoice_core.flow.prefix import FlowPrefix
from cosyvoice_core.flow.stepper import FlowStepper
from cosyvoice_core.flow.stream import FlowStream

_LONG_FRAMES = 1500
"""Within the budget the faster form of caches is taken for utterances of so many frames (30 s)."""


class FlowSession:
    """Runs one stream to the end of what can be computed at every push."""

    def __init__(
        self,
        model: FlowModel,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker: Tensor,
        prefix: FlowPrefix | None = None,
        *,
        stepper: FlowStepper | None = None,
        left_chunks: int | None = None,
    ) -> None:
        """See `FlowStream`. Without a stepper the session has one, and caches, of its own."""
        self._bins = model.config.mel_bins
        self.stepper = private_stepper(model) if stepper is None else stepper
        self.stream = FlowStream(
            model, self.stepper.memory, prompt_tokens, prompt_mel, speaker, prefix, left_chunks=left_chunks
        )

    @property
    def tokens_needed(self) -> int:
        """How many more tokens complete the next chunk (with its look-ahead)."""
        return self.stream.tokens_needed

    @property
    def cache_bytes(self) -> int:
        return self.stream.cache_bytes

    def push(self, tokens: Sequence[int] | Tensor, *, last: bool) -> Tensor:
        """Add tokens; mel (bins, frames), on the host, of the chunks they complete, without the prompt's, perhaps none.

        Raises EngineError when a mel value is not finite, InputError beyond 300 s, ValueError after the last push.
        """
        self.stream.feed(tokens, last=last)
        pieces = [torch.zeros((self._bins, 0))]
        while self.stream.begin() is not None:
            while not self.stepper.step([self.stream]):
                pass
            pieces.append(self.stream.finish())
        return torch.cat(pieces, dim=1)

    def close(self) -> None:
        """Free the stream's caches, for a stepper that others use too."""
        self.stream.close()


def private_stepper(model: FlowModel, budget_bytes: int = 8 * 2**30) -> FlowStepper:
    """A stepper with memory for streams one at a time, of any length within the budget; beyond it they recompute."""
    form = form_within(model, budget_bytes, _LONG_FRAMES)
    longest = page_bytes(model, form) * (MAX_FRAMES // model.config.chunk_frames)
    return FlowStepper(model, FlowMemory(model, min(budget_bytes, longest), form))
