"""One stream through the flow by itself: tokens in pieces of any size, mel frames out, nothing computed twice.

Equals `FlowModel.mel(..., streaming=True, finalize=True)` up to float rounding. Many streams together are the business
of `stepper` and whoever schedules it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.prefix import FlowPrefix
from cosyvoice_core.flow.stepper import FlowStepper
from cosyvoice_core.flow.stream import FlowStream


class FlowSession:
    """Runs one stream to the end of what can be computed at every push."""

    def __init__(
        self,
        model: FlowModel,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker: Tensor,
        prefix: FlowPrefix | None = None,
    ) -> None:
        """See `FlowStream`."""
        self._bins = model.config.mel_bins
        self._stepper = FlowStepper(model)
        self.stream = FlowStream(model, prompt_tokens, prompt_mel, speaker, prefix)

    @property
    def tokens_needed(self) -> int:
        """How many more tokens complete the next chunk (with its look-ahead)."""
        return self.stream.tokens_needed

    @property
    def cache_bytes(self) -> int:
        return self.stream.cache_bytes

    def push(self, tokens: Sequence[int] | Tensor, *, last: bool) -> Tensor:
        """Add tokens; mel (bins, frames) of the chunks they complete, prompt frames left out, perhaps 0 frames.

        Raises EngineError when a mel value is not finite, InputError beyond 300 s, ValueError after the last push.
        """
        self.stream.feed(tokens, last=last)
        pieces = [torch.zeros((self._bins, 0))]
        while self.stream.begin() is not None:
            while not self._stepper.step([self.stream]):
                pass
            pieces.append(self.stream.finish())
        return torch.cat([piece.to(pieces[-1].device) for piece in pieces], dim=1)
