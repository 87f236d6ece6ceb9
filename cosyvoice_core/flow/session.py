"""One stream through the flow: tokens in pieces of any size, mel frames out, nothing computed twice.

Every push runs only its new frames through the encoder and all Euler steps; step k reads the caches of step k, so
the ODE state itself needs none. Equals `FlowModel.mel(..., streaming=True, finalize=True)` up to float rounding.
Source: docs/model.md, "Exact incremental computation".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cosyvoice_core.errors import EngineError
from cosyvoice_core.flow.cache import StackCache
from cosyvoice_core.flow.model import FlowModel


class FlowSession:
    """State of one utterance; frames leave when the chunk they belong to is complete, or at the end."""

    def __init__(self, model: FlowModel, prompt_tokens: Tensor, prompt_mel: Tensor, speaker: Tensor) -> None:
        """prompt_tokens (P,) ids, prompt_mel (2P, bins), speaker (speaker_dim,)."""
        self._model = model
        self._prompt_mel = prompt_mel
        self._prompt_frames = len(prompt_mel)
        with torch.inference_mode():
            self._speaker = model.speaker(speaker)
            self._pending = model.network.encoder.embed(model.embed(prompt_tokens))
        self._encoder_cache = StackCache()
        self._step_caches = model.solver.caches()
        self._done_tokens = 0
        self._ended = False

    @property
    def tokens_needed(self) -> int:
        """How many more tokens complete the next chunk (with its look-ahead)."""
        chunk = self._model.config.chunk_tokens
        arrived = self._done_tokens + self._waiting
        complete = max(self._done_tokens, self._prompt_frames // self._model.config.mel_ratio)
        boundary = (complete // chunk + 1) * chunk
        return max(boundary + self._model.config.lookahead_tokens - arrived, 0)

    @property
    def _waiting(self) -> int:
        """Tokens that arrived and have given no frames yet."""
        return int(self._pending.shape[1])

    @property
    def cache_bytes(self) -> int:
        return self._encoder_cache.nbytes + sum(cache.nbytes for cache in self._step_caches)

    @torch.inference_mode()
    def push(self, tokens: Sequence[int] | Tensor, *, last: bool) -> Tensor:
        """Add tokens; mel (bins, frames) of the chunks they complete, prompt frames left out, perhaps 0 frames.

        Raises EngineError when a mel value is not finite, InputError beyond 300 s, ValueError after the last push.
        """
        if self._ended:
            raise ValueError("push after the last push of a stream")
        self._ended = last
        model = self._model
        ids = torch.as_tensor(tokens, dtype=torch.long)
        if len(ids):
            self._pending = torch.cat((self._pending, model.network.encoder.embed(model.embed(ids))), dim=1)
        ready = self._ready_tokens(last)
        if ready == 0:
            return torch.zeros((model.config.mel_bins, 0))
        mel = self._run(ready, last)
        if not torch.isfinite(mel).all():
            raise EngineError("the flow decoder produced a value that is not finite")
        return mel

    def _ready_tokens(self, last: bool) -> int:
        if last:
            return self._waiting
        chunk = self._model.config.chunk_tokens
        complete = (self._done_tokens + self._waiting - self._model.config.lookahead_tokens) // chunk * chunk
        return max(complete - self._done_tokens, 0)

    def _run(self, count: int, last: bool) -> Tensor:
        model, encoder = self._model, self._model.network.encoder
        first, frames = self._done_tokens * model.config.mel_ratio, count * model.config.mel_ratio
        noise = model.noise.frames(first, frames)
        ahead = self._pending[:, count : count + encoder.lookahead]
        if last:
            ahead = encoder.no_context(self._pending)
        hidden = encoder.run(
            self._pending[:, :count],
            ahead,
            first=self._done_tokens,
            streaming=True,
            cache=self._encoder_cache,
        )
        mu = model.network.encoder_proj(hidden)
        mel = model.solver.solve(
            noise[None],
            mu,
            self._speaker,
            model.condition(self._prompt_mel, first, frames),
            streaming=True,
            caches=self._step_caches,
            first=first,
        )
        self._done_tokens += count
        self._pending = self._pending[:, count:]
        return mel[0, max(self._prompt_frames - first, 0) :].T.float()
