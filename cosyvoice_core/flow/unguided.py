"""The unconditional velocity of the first Euler step, computed once per process for every frame that is reached.

At time 0 the unconditional row sees the fixed noise and nothing else: no tokens, no speaker, no prompt. With streaming
masks its velocity is therefore a function of the absolute frame alone, the same in all utterances, and so is what
later frames need of it. Only the chunk that an utterance ends within differs, as it sees less of itself: it is
computed beside what is kept, and not kept. Source: docs/model.md, "Flow matching".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cosyvoice_core.flow.attention import attend
from cosyvoice_core.flow.cache import Attended, AttentionLayer, KVCache, TailCache
from cosyvoice_core.flow.model import FlowModel


class UnguidedStart:
    """Velocities by frame, extended chunk by chunk as utterances reach further; never more than 300 s of them."""

    def __init__(self, model: FlowModel) -> None:
        self._model = model
        self._chunk = model.config.chunk_frames
        estimator = model.network.decoder.estimator
        self._layers = [KVCache() for _ in range(estimator.attention_layers)]
        self._known = model.noise.frames(0, 0)
        self._tails: list[list[Tensor | None]] = [[None] * len(estimator.tail_channels)]
        """What convolutions need at the beginning of each chunk."""

    @property
    def frames(self) -> int:
        """How many are known."""
        return len(self._known)

    @property
    def nbytes(self) -> int:
        tails = sum(frames.nbytes for chunk in self._tails for frames in chunk if frames is not None)
        return self._known.nbytes + tails + sum(layer.nbytes for layer in self._layers)

    def velocity(self, first: int, stop: int) -> Tensor:
        """(stop - first, bins) for frames of an utterance that reaches `stop`, the end of a chunk or of the utterance.

        `first` is the beginning of a chunk.
        """
        whole = stop // self._chunk * self._chunk
        while self.frames < whole:
            caches = _Pass(self._layers, self._tails[-1], None)
            self._known = torch.cat((self._known, self._compute(self.frames, self._chunk, caches)))
            self._tails.append(caches.tails_after())
        if stop == whole:
            return self._known[first:stop]
        beside = _Pass(self._layers, self._tails[whole // self._chunk], whole)
        return torch.cat((self._known[first:whole], self._compute(whole, stop - whole, beside)))

    def _compute(self, first: int, count: int, caches: _Pass) -> Tensor:
        model = self._model
        velocity = model.network.decoder.estimator.velocity(
            model.noise.frames(first, count)[None],
            model.unconditional.expanded(count),
            model.solver.projections([0], [1]),
            cache=caches,
        )
        return velocity[0]


class _Pass:
    """`LayerCaches` of one pass: keeps what comes (`beside` None), or goes on from the first `beside` frames alone."""

    def __init__(self, layers: Sequence[KVCache], tails: Sequence[Tensor | None], beside: int | None) -> None:
        self._layers = layers
        self._before = tails
        self._beside = beside
        self.rewind()

    def rewind(self) -> None:
        self._tails: list[TailCache] = []
        self._next_layer = 0

    def tail(self, width: int) -> TailCache:
        self._tails.append(TailCache(width, self._before[len(self._tails)]))
        return self._tails[-1]

    def attention(self) -> Attended:
        layer = self._layers[self._next_layer]
        self._next_layer += 1
        return layer if self._beside is None else _Beside(layer, self._beside)

    def tails_after(self) -> list[Tensor | None]:
        return [tail.frames for tail in self._tails]


class _Beside:
    """Attention to the first frames of a cache and to what comes, which is not kept."""

    def __init__(self, cache: KVCache, frames: int) -> None:
        self._before = cache.first(frames)

    def attend(self, layer: AttentionLayer, x: Tensor) -> Tensor:
        queries, own = layer.queries(x), (layer.keys(x), layer.values(x))
        pieces = [own] if self._before is None else [self._before, own]
        return attend(queries, pieces, queries.shape[-1] ** -0.5)
