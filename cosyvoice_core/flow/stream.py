"""State of one utterance in the flow: tokens in pieces of any size, chunks of mel frames out.

A chunk goes through the encoder when it begins and through the Euler steps one by one, so that a scheduler can run
the steps of many streams together, each at its own. Step k reads the caches of step k, so the ODE state itself needs
none. What a chunk computed becomes part of the stream only when the chunk is finished.

A stream that cannot have the pages it needs goes on without: it gives its own back, and each later chunk computes
all its frames again (`Chunk.first` lies before the new ones), with the same result. As soon as there is room, such a
chunk writes pages as well and the stream is incremental again.

Knows nothing of other streams. Source: docs/model.md, "Exact incremental computation".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cosyvoice_core.errors import EngineError
from cosyvoice_core.flow.cache import StackCache
from cosyvoice_core.flow.chunk import Chunk
from cosyvoice_core.flow.masks import past_mask
from cosyvoice_core.flow.memory import TAIL_WIDTH, FlowMemory, rows_of
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.prefix import FlowPrefix
from cosyvoice_core.flow.residual import Conditions


class FlowStream:
    """One utterance; chunks begin when their tokens (and look-ahead) are there, one at a time."""

    def __init__(
        self,
        model: FlowModel,
        memory: FlowMemory,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker: Tensor,
        prefix: FlowPrefix | None = None,
        *,
        left_chunks: int | None = None,
    ) -> None:
        """prompt_tokens (P,) ids, prompt_mel (2P, bins), speaker (speaker_dim,).

        `prefix` are caches of the same prompt's first chunks, which then are not computed again. left_chunks: an
        approximation that the model was not trained for: attention of the estimator sees the prompt and so many chunks
        before its own, so that memory stops growing; None sees all. Raises ValueError for less than 1.
        """
        if left_chunks is not None and left_chunks < 1:
            raise ValueError(f"left_chunks must be at least 1, got {left_chunks}")
        self._model = model
        self._memory = memory
        self._prompt_mel = prompt_mel
        self._prompt_frames = len(prompt_mel)
        self._left_chunks = left_chunks
        self.done_tokens = 0 if prefix is None else prefix.tokens
        with torch.inference_mode():
            self._speaker = model.speaker(speaker)
            self._pending = model.network.encoder.embed(model.embed(prompt_tokens[self.done_tokens :]))
        self._encoder_cache = StackCache() if prefix is None else prefix.encoder.fork()
        self._fixed_cache = StackCache() if prefix is None else prefix.fixed.fork()
        self._base_frames = self.done_tokens * model.config.mel_ratio
        self._base_pages = () if prefix is None else prefix.pages
        self._base_tails: Sequence[Tensor] = _no_tails(model) if prefix is None else prefix.tails
        memory.pages.hold(self._base_pages)
        self._tails: Sequence[Tensor] = self._base_tails
        self._pages: list[int | None] = []
        """Own pages by chunk behind the base; None where one was given up for good (left_chunks)."""
        self.cached = True
        """Whether earlier chunks are in pages, so that a new one computes its own frames only."""
        self._conditions: list[Conditions] = []
        self.chunk: Chunk | None = None
        self._last = False
        self._closed = False

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
    def pages_needed(self) -> int:
        """Free pages without which the next chunk cannot be incremental, or cannot become so again."""
        size = self._next_size()
        if size == 0 or self.chunk is not None or self._ends_with(size):
            return 0
        return 1 if self.cached else self._chunks_since_base() + 1

    @property
    def own_pages(self) -> int:
        """Pages that giving up the caches of this stream would free."""
        return sum(page is not None for page in self._pages)

    @property
    def cache_bytes(self) -> int:
        """Of this stream alone: pages, tails and the encoder's small caches."""
        tails = sum(tail.nbytes for tail in self._tails) if self._tails is not self._base_tails else 0
        small = self._encoder_cache.nbytes + self._fixed_cache.nbytes
        return self.own_pages * self._memory.page_bytes + tails + small

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
        """The chunk in work; begins the next one if there is none and its tokens are there.

        Takes the pages it needs; when there are not enough the stream goes on without (see the module's docstring).
        """
        size = self._next_size()
        if self.chunk is not None or size == 0:
            return self.chunk
        final = self._ends_with(size)
        if self.cached and not final and self._memory.pages.free == 0:
            self.give_up_caches()
        first = self.done_tokens * self._model.config.mel_ratio
        self._conditions.append(self._encode(size))
        stop = self.done_tokens * self._model.config.mel_ratio
        if not self.cached:
            self.chunk = self._recomputing(first, stop, keep=not final)
            return self.chunk
        self._forget_left(first)
        if final:
            kept: tuple[int, ...] = ()
        else:
            kept = self._take(1, after=self._last_page())
            self._pages.extend(kept)
        own = [page for page in self._pages[: len(self._pages) - len(kept)] if page is not None]
        noise = self._model.noise.frames(first, stop - first)
        past = (*self._base_pages, *own)
        self.chunk = Chunk(noise, self._conditions[-1], first, first, past, kept, self._tails, None, [])
        return self.chunk

    def give_up_caches(self) -> None:
        """Free the stream's own pages; it goes on by computing all its frames again. Not in the middle of a chunk."""
        if self.chunk is not None:
            raise ValueError("a stream cannot give up caches that its chunk reads")
        self._give_own()
        self._tails = self._base_tails
        self.cached = False

    def close(self) -> None:
        """Free all pages, whatever the stream is doing; it cannot be used any more. May be called again."""
        if not self._closed:
            self._closed = True
            self._give_own()
            self._memory.pages.give(self._base_pages)

    def snapshot(self) -> FlowPrefix | None:
        """Caches as they are now, for other utterances of the voice; only while prompt chunks alone are done.

        None when this stream could not keep them. Raises ValueError in the middle of a chunk and once tokens of the
        utterance are part of the caches.
        """
        if self.chunk is not None or self.done_tokens * self._model.config.mel_ratio > self._prompt_frames:
            raise ValueError("these caches depend on more than the prompt")
        if not self.cached:
            return None
        pages = (*self._base_pages, *(page for page in self._pages if page is not None))
        self._memory.pages.hold(pages)
        return FlowPrefix(
            self._memory,
            self.done_tokens,
            self._encoder_cache.fork(),
            self._fixed_cache.fork(),
            tuple(self._tails),
            pages,
        )

    def finish(self) -> Tensor:
        """The chunk's new mel (bins, frames) on the host, prompt frames left out; waits for the device, once.

        Raises EngineError when a value of the chunk is not finite.
        """
        chunk = self.complete()
        x = chunk.x.float().cpu()
        if not torch.isfinite(x).all():
            raise EngineError("the flow decoder produced a value that is not finite")
        return x[max(self._prompt_frames, chunk.new) - chunk.first :].T

    def complete(self) -> Chunk:
        """The chunk in work, all of whose steps are done, becomes part of the stream."""
        chunk, self.chunk = self.chunk, None
        assert chunk is not None
        if chunk.kept:
            self._tails = chunk.tails_after
            self.cached = True
        elif self.cached:
            self._tails = chunk.tails_after
        return chunk

    def _encode(self, size: int) -> Conditions:
        """Conditions of the next `size` tokens' frames, from the encoder; the tokens are done with."""
        model, encoder = self._model, self._model.network.encoder
        first, frames = self.done_tokens * model.config.mel_ratio, size * model.config.mel_ratio
        ahead = self._pending[:, size : size + encoder.lookahead]
        if ahead.shape[1] < encoder.lookahead:
            # Past the end of speech; only a last push leaves fewer tokens than the look-ahead.
            nothing = encoder.no_context(self._pending)
            ahead = torch.cat((ahead, nothing), dim=1)[:, : encoder.lookahead]
        hidden = encoder.run(
            self._pending[:, :size], ahead, first=self.done_tokens, streaming=True, cache=self._encoder_cache
        )
        mu = model.network.encoder_proj(hidden)
        self.done_tokens += size
        self._pending = self._pending[:, size:]
        condition = model.condition(self._prompt_mel, first, frames)
        return model.network.decoder.estimator.conditions(mu, self._speaker, condition, cache=self._fixed_cache)

    def _recomputing(self, new: int, stop: int, *, keep: bool) -> Chunk:
        """A chunk that computes all frames from the base on, and keeps them if there is room."""
        first, chunk_frames = self._base_frames, self._model.config.chunk_frames
        count = (stop - first) // chunk_frames
        if keep and self._memory.pages.free >= count:
            self._pages.extend(self._take(count, after=None))
        kept = tuple(page for page in self._pages if page is not None)
        mask = past_mask(
            first, stop, chunk_frames, self._model.device, left_chunks=self._left_chunks, always=self._prompt_chunks
        )
        noise = self._model.noise.frames(first, stop - first)
        conditions = Conditions.behind(self._conditions)
        return Chunk(noise, conditions, first, new, self._base_pages, kept, self._base_tails, mask, [])

    def _take(self, count: int, after: int | None) -> tuple[int, ...]:
        """So many pages, which must be free."""
        pages: list[int] = []
        for _ in range(count):
            page = self._memory.pages.take(pages[-1] if pages else after)
            assert page is not None
            pages.append(page)
        return tuple(pages)

    def _give_own(self) -> None:
        self._memory.pages.give(page for page in self._pages if page is not None)
        self._pages.clear()

    def _last_page(self) -> int | None:
        return self._pages[-1] if self._pages else None

    def _forget_left(self, first: int) -> None:
        """Give back the pages that a chunk from frame `first` on does not see any more."""
        if self._left_chunks is None:
            return
        chunk_frames = self._model.config.chunk_frames
        base = self._base_frames // chunk_frames
        for chunk in range(self._prompt_chunks, first // chunk_frames - self._left_chunks):
            page = self._pages[chunk - base]
            if page is not None:
                self._memory.pages.give((page,))
                self._pages[chunk - base] = None

    @property
    def _prompt_chunks(self) -> int:
        """Chunks that hold frames of the prompt."""
        return -(-self._prompt_frames // self._model.config.chunk_frames)

    @property
    def _waiting(self) -> int:
        """Tokens that arrived and belong to no chunk yet."""
        return int(self._pending.shape[1])

    def _chunks_since_base(self) -> int:
        return (self.done_tokens * self._model.config.mel_ratio - self._base_frames) // self._model.config.chunk_frames

    def _ends_with(self, size: int) -> bool:
        """Whether a chunk of `size` tokens is the utterance's last, which nobody goes on from."""
        return self._last and self._waiting == size

    def _next_size(self) -> int:
        """Tokens of the next chunk, 0 while it is not complete."""
        chunk = self._model.config.chunk_tokens
        if self._last:
            return min(self._waiting, chunk)
        return chunk if self._waiting >= chunk + self._model.config.lookahead_tokens else 0


def _no_tails(model: FlowModel) -> list[Tensor]:
    """At the start of an utterance: zeros, as left padding has it; (rows, 2, channels of all convolutions) by step."""
    channels = sum(model.network.decoder.estimator.tail_channels)
    zeros = torch.zeros((rows_of(1), TAIL_WIDTH, channels), device=model.device, dtype=model.dtype)
    return [zeros[: rows_of(step)] for step in range(model.config.ode_steps)]
