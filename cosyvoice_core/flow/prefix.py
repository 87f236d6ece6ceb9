"""What utterances of one voice share: the caches of the chunks that depend on its prompt alone.

The first floor((P - look-ahead) / chunk) chunks of a stream see prompt tokens, prompt mel and speaker vector and
nothing else: their look-ahead ends inside the prompt. Their caches are therefore the same for every text and may be
computed once, kept as long as memory allows, and read by all utterances of the voice at once.
Source: docs/model.md, "Exact incremental computation".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from cosyvoice_core.flow.cache import StackCache
from cosyvoice_core.flow.memory import FlowMemory


@dataclass(frozen=True, slots=True, eq=False)
class FlowPrefix:
    """Caches of a prompt's first `tokens` tokens; never extended, only forked.

    encoder, fixed: of the token encoder and of the part of the first convolution that does not change with time; tails:
    by Euler step; pages: in `memory`, held until `release`.
    """

    memory: FlowMemory
    tokens: int
    encoder: StackCache
    fixed: StackCache
    tails: tuple[Tensor, ...]
    pages: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        tails = sum(tail.nbytes for tail in self.tails) + self.fixed.nbytes
        return len(self.pages) * self.memory.page_bytes + tails

    def release(self) -> None:
        """Let go of the pages; streams that read them keep them for as long as they need."""
        self.memory.pages.give(self.pages)


class PrefixCache:
    """Prefixes by voice, least recently used first out beyond a budget of bytes.

    What it keeps is final (see the module's docstring); the key must name everything the prefix depends on: prompt
    tokens, prompt mel and speaker vector.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._known: OrderedDict[Hashable, FlowPrefix] = OrderedDict()
        self.nbytes = 0
        self.pages = 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Hashable) -> FlowPrefix | None:
        """The prefix of a voice, if it is known."""
        prefix = self._known.get(key)
        if prefix is not None:
            self._known.move_to_end(key)
        return prefix

    def put(self, key: Hashable, prefix: FlowPrefix) -> None:
        """Keep a prefix in place of one the voice may have; one that alone exceeds the budget is released at once."""
        known = self._known.pop(key, None)
        if known is not None:
            self._forget(known)
        if prefix.nbytes > self._budget:
            prefix.release()
            return
        self._known[key] = prefix
        self.nbytes += prefix.nbytes
        self.pages += len(prefix.pages)
        while self.nbytes > self._budget:
            self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Give up the least recently used prefix; False when there is none."""
        if not self._known:
            return False
        self._forget(self._known.popitem(last=False)[1])
        return True

    def _forget(self, prefix: FlowPrefix) -> None:
        self.nbytes -= prefix.nbytes
        self.pages -= len(prefix.pages)
        prefix.release()
