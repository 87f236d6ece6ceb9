"""What an incremental pass keeps of earlier frames: convolution tails and attention keys and values.

Why it is final: every convolution looks left only, every norm is per frame, attention positions are either absent
or relative, the noise is indexed by absolute frame, and the block mask hides all frames past the end of a query's
own chunk. A frame's activations in any layer are therefore a function of frames up to the end of its chunk. When
a chunk is complete nothing that arrives later can change them, so the tails, keys and values taken from complete
chunks never need recomputation (docs/model.md, "Exact incremental computation"). Only the last push of a stream
may end inside a chunk, and nothing follows it.

For the same reason caches of the chunks that depend on a voice's prompt alone can be forked: all utterances of the
voice read them, none writes them.

Here are the caches that are small or of one kind per process; the estimator's of each utterance, which are hundreds
of times larger, live in the pages of `memory.py`. Knows nothing of layers: each is handed what belongs to it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

_GROWTH_FRAMES = 256


class AttentionLayer(Protocol):
    """What an attention layer makes of its normalised input x (B, T, dim); see `transformer.Attention`."""

    @property
    def heads(self) -> int: ...

    def queries(self, x: Tensor) -> Tensor: ...

    def keys(self, x: Tensor) -> Tensor: ...

    def values(self, x: Tensor) -> Tensor: ...

    def input_queries(self, x: Tensor) -> Tensor: ...

    def values_of_mixtures(self, mixtures: Tensor) -> Tensor: ...


class Tail(Protocol):
    """Input frames that a causal convolution still needs."""

    def extend(self, x: Tensor) -> Tensor:
        """Prepend what is kept (zeros at the start of a stream) to x (B, T, C) and keep its new end."""
        ...


class Attended(Protocol):
    """What an attention layer still needs of earlier frames."""

    def attend(self, layer: AttentionLayer, x: Tensor) -> Tensor:
        """Keep what later frames need of x (B, T, dim) and attend to all that is kept; (B, heads, T, head_dim)."""
        ...


class LayerCaches(Protocol):
    """Hands out the caches of one pass in the order the layers run."""

    def rewind(self) -> None: ...

    def tail(self, width: int) -> Tail: ...

    def attention(self) -> Attended: ...


class TailCache:
    """The last `width` input frames of one causal convolution, (B, width, C)."""

    __slots__ = ("frames", "width")

    def __init__(self, width: int, frames: Tensor | None = None) -> None:
        self.width = width
        self.frames = frames

    def extend(self, x: Tensor) -> Tensor:
        kept = x.new_zeros(x.shape[0], self.width, x.shape[2]) if self.frames is None else self.frames
        joined = torch.cat((kept, x), dim=1)
        self.frames = joined[:, joined.shape[1] - self.width :].clone()
        return joined

    def fork(self) -> TailCache:
        return TailCache(self.width, self.frames)

    @property
    def nbytes(self) -> int:
        return 0 if self.frames is None else self.frames.nbytes


class KVCache:
    """Keys and values of one attention layer, each (B, heads, S, head_dim), grown in steps.

    A fork reads the same storage and moves to storage of its own before it writes; the original only ever writes
    behind what its forks read.
    """

    __slots__ = ("_keys", "_shared", "_values", "length")

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._shared = False

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, heads, T, head_dim) and return views of all keys and values so far."""
        end = self.length + keys.shape[2]
        self._keys = self._writable(self._keys, keys, end)
        self._values = self._writable(self._values, values, end)
        self._shared = False
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def attend(self, layer: AttentionLayer, x: Tensor) -> Tensor:
        """One chunk, or the part of one there is: all of it sees all of itself and of what is kept."""
        keys, values = self.extend(layer.keys(x), layer.values(x))
        return F.scaled_dot_product_attention(layer.queries(x), keys, values)

    def fork(self) -> KVCache:
        twin = KVCache()
        twin.length, twin._keys, twin._values, twin._shared = self.length, self._keys, self._values, True
        return twin

    def first(self, frames: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the first frames that are kept; None for no frames."""
        if frames == 0 or self._keys is None or self._values is None:
            return None
        return self._keys[:, :, :frames], self._values[:, :, :frames]

    def _writable(self, store: Tensor | None, like: Tensor, needed: int) -> Tensor:
        if store is not None and store.shape[2] >= needed and not self._shared:
            return store
        capacity = -(-needed // _GROWTH_FRAMES) * _GROWTH_FRAMES
        grown = like.new_empty(like.shape[0], like.shape[1], capacity, like.shape[3])
        if store is not None:
            grown[:, :, : self.length] = store[:, :, : self.length]
        return grown

    @property
    def nbytes(self) -> int:
        if self._keys is None or self._values is None:
            return 0
        return self._keys.nbytes + self._values.nbytes


class StackCache:
    """Caches of one pass through a stack of layers, created and handed out in the order the layers run."""

    __slots__ = ("_attentions", "_next_attention", "_next_tail", "_tails")

    def __init__(self) -> None:
        self._tails: list[TailCache] = []
        self._attentions: list[KVCache] = []
        self._next_tail = 0
        self._next_attention = 0

    def rewind(self) -> None:
        """Start a new pass: the first layer comes first again."""
        self._next_tail = 0
        self._next_attention = 0

    def tail(self, width: int) -> TailCache:
        if self._next_tail == len(self._tails):
            self._tails.append(TailCache(width))
        self._next_tail += 1
        return self._tails[self._next_tail - 1]

    def attention(self) -> KVCache:
        if self._next_attention == len(self._attentions):
            self._attentions.append(KVCache())
        self._next_attention += 1
        return self._attentions[self._next_attention - 1]

    def fork(self) -> StackCache:
        """A cache that goes on from here by itself, and reads what is here without copying it."""
        twin = StackCache()
        twin._tails = [tail.fork() for tail in self._tails]
        twin._attentions = [kv.fork() for kv in self._attentions]
        return twin

    @property
    def nbytes(self) -> int:
        return sum(tail.nbytes for tail in self._tails) + sum(kv.nbytes for kv in self._attentions)
