"""What utterances of one voice share: the caches of the chunks that depend on its prompt alone.

The first floor((P - look-ahead) / chunk) chunks of a stream see prompt tokens, prompt mel and speaker vector and
nothing else: their look-ahead ends inside the prompt. Their caches are therefore the same for every text and may be
computed once, kept as long as memory allows, and read by all utterances of the voice at once.
Source: docs/model.md, "Exact incremental computation".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from cosyvoice_core.flow.cache import StackCache


@dataclass(frozen=True, slots=True)
class FlowPrefix:
    """Caches of a prompt's first `tokens` tokens; never extended, only forked."""

    tokens: int
    encoder: StackCache
    steps: tuple[StackCache, ...]

    @property
    def nbytes(self) -> int:
        return self.encoder.nbytes + sum(cache.nbytes for cache in self.steps)


class PrefixCache:
    """Prefixes by voice, least recently used first out beyond a budget of bytes.

    What it keeps is final (see the module's docstring); the key must name everything the prefix depends on: prompt
    tokens, prompt mel and speaker vector.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._known: OrderedDict[Hashable, FlowPrefix] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Hashable) -> FlowPrefix | None:
        """The prefix of a voice, if it is known."""
        prefix = self._known.get(key)
        if prefix is not None:
            self._known.move_to_end(key)
        return prefix

    def put(self, key: Hashable, take: Callable[[], FlowPrefix]) -> None:
        """Keep the prefix that `take` gives, unless the voice is known or it alone exceeds the budget."""
        if key in self._known:
            return
        prefix = take()
        if prefix.nbytes > self._budget:
            return
        self._known[key] = prefix
        self.nbytes += prefix.nbytes
        while self.nbytes > self._budget:
            self.nbytes -= self._known.popitem(last=False)[1].nbytes
