"""State of one utterance in the flow: tokens in pieces of any size, chunks of mel frames out.

A chunk goes through the encoder when it begins and through the Euler steps one by one, so that a scheduler can run
the steps of many streams together, each at its own. Step k reads the caches of step k, so the ODE state itself needs
none. Knows nothing of other streams. Source: docs/model.md, "Exact incremental computation".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cosyvoice_core.errors import EngineError
from cosyvoice_core.flow.cache import StackCache
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.prefix import FlowPrefix


class Chunk:
    """Frames on their way from noise to mel.

    x (T, bins) after `step` Euler steps; mu, condition (T, bins); first: absolute frame.
    """

    __slots__ = ("condition", "first", "mu", "step", "x")

    def __init__(self, x: Tensor, mu: Tensor, condition: Tensor, first: int) -> None:
        self.x = x
        self.mu = mu
        self.condition = condition
        self.first = first
        self.step = 0

    @property
    def frames(self) -> int:
        return int(self.x.shape[0])


class FlowStream:
    """One utterance; chunks begin when their tokens (and look-ahead) are there, one at a time."""

    def __init__(
        self,
        model: FlowModel,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker: Tensor,
        prefix: FlowPrefix | None = None,
    ) -> None:
        """prompt_tokens (P,) ids, prompt_mel (2P, bins), speaker (speaker_dim,).

        `prefix` are caches of the same prompt's first chunks, which then are not computed again.
        """
        self._model = model
        self._prompt_mel = prompt_mel
        self._prompt_frames = len(prompt_mel)
        self.done_tokens = 0 if prefix is None else prefix.tokens
        with torch.inference_mode():
            self.speaker = model.speaker(speaker)
            self._pending = model.network.encoder.embed(model.embed(prompt_tokens[self.done_tokens :]))
        self.encoder_cache = StackCache() if prefix is None else prefix.encoder.fork()
        self.step_caches = model.solver.caches() if prefix is None else [cache.fork() for cache in prefix.steps]
        self.chunk: Chunk | None = None
        self._last = False

    @property
    def tokens_needed(self) -> int:
        """How many more tokens complete the next chunk that holds new frames (with its look-ahead)."""
        chunk = self._model.config.chunk_tokens
        complete = max(self.done_tokens, self._prompt_frames // self._model.config.mel_ratio)
        boundary = (complete // chunk + 1) * chunk
        return max(boundary + self._model.config.lookahead_tokens - self.done_tokens - self._waiting, 0)

    @property
    def done(self) -> bool:
        """Whether the last push was made and all its frames have left."""
        return self._last and self.chunk is None and self._waiting == 0

    @property
    def ready(self) -> bool:
        """Whether there is a chunk to compute."""
        return self.chunk is not None or self._next_size() > 0

    @property
    def cache_bytes(self) -> int:
        return self.encoder_cache.nbytes + sum(cache.nbytes for cache in self.step_caches)

    def feed(self, tokens: Sequence[int] | Tensor, *, last: bool) -> None:
        """Add tokens. Raises ValueError after the last push, InputError beyond 300 s."""
        if self._last:
            raise ValueError("push after the last push of a stream")
        self._model.noise.require((self.done_tokens + self._waiting + len(tokens)) * self._model.config.mel_ratio)
        self._last = last
        ids = torch.as_tensor(tokens, dtype=torch.long)
        if len(ids):
            with torch.inference_mode():
                embedded = self._model.network.encoder.embed(self._model.embed(ids))
                self._pending = torch.cat((self._pending, embedded), dim=1)

    @torch.inference_mode()
    def begin(self) -> Chunk | None:
        """The chunk in work; begins the next one if there is none and its tokens are there."""
        size = self._next_size()
        if self.chunk is not None or size == 0:
            return self.chunk
        model, encoder = self._model, self._model.network.encoder
        first, frames = self.done_tokens * model.config.mel_ratio, size * model.config.mel_ratio
        noise = model.noise.frames(first, frames)
        ahead = self._pending[:, size : size + encoder.lookahead]
        if ahead.shape[1] < encoder.lookahead:
            # Past the end of speech; only a last push leaves fewer tokens than the look-ahead.
            nothing = encoder.no_context(self._pending)
            ahead = torch.cat((ahead, nothing), dim=1)[:, : encoder.lookahead]
        hidden = encoder.run(
            self._pending[:, :size], ahead, first=self.done_tokens, streaming=True, cache=self.encoder_cache
        )
        mu = model.network.encoder_proj(hidden)[0]
        self.chunk = Chunk(noise, mu, model.condition(self._prompt_mel, first, frames)[0], first)
        self.done_tokens += size
        self._pending = self._pending[:, size:]
        return self.chunk

    def snapshot(self) -> FlowPrefix:
        """Caches as they are now, for other utterances of the voice; only while prompt chunks alone are done.

        Raises ValueError in the middle of a chunk and once tokens of the utterance are part of the caches.
        """
        if self.chunk is not None or self.done_tokens * self._model.config.mel_ratio > self._prompt_frames:
            raise ValueError("these caches depend on more than the prompt")
        return FlowPrefix(
            self.done_tokens, self.encoder_cache.fork(), tuple(cache.fork() for cache in self.step_caches)
        )

    def finish(self) -> Tensor:
        """The chunk's mel (bins, frames), prompt frames left out; raises EngineError when it is not finite."""
        chunk, self.chunk = self.chunk, None
        assert chunk is not None
        if not torch.isfinite(chunk.x).all():
            raise EngineError("the flow decoder produced a value that is not finite")
        return chunk.x[max(self._prompt_frames - chunk.first, 0) :].T.float()

    @property
    def _waiting(self) -> int:
        """Tokens that arrived and belong to no chunk yet."""
        return int(self._pending.shape[1])

    def _next_size(self) -> int:
        """Tokens of the next chunk, 0 while it is not complete."""
        chunk = self._model.config.chunk_tokens
        if self._last:
            return min(self._waiting, chunk)
        return chunk if self._waiting >= chunk + self._model.config.lookahead_tokens else 0
