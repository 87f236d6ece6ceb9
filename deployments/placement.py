"""Where replicas may come to lie on cards: what Serve's scheduler sees of a config, and every outcome it allows.

Fractions of a card bound placement and nothing else: neither memory nor time. Replicas are placed one by one, in any
order, on any card with room, and never moved. Knows no bytes (`sizing`) and starts nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

Mix = Mapping[str, int]
"""Replicas on one card, by deployment."""

_PARTS = 10_000
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True, slots=True)
class Share:
    """What the scheduler sees of a deployment on cards.

    fraction: of one card; most: replicas that may run at once; a_node: replicas on one node, None without bound; pool:
    custom resources and card type that a node must have.
    """

    name: str
    fraction: float
    most: int
    a_node: int | None = None
    pool: frozenset[str] = frozenset()

    @property
    def parts(self) -> int:
        return round(self.fraction * _PARTS)


def shares(application: Mapping[str, Any]) -> list[Share]:
    """The deployments of a Serve config's application that ask for cards."""
    found = []
    for deployment in application["deployments"]:
        options = deployment.get("ray_actor_options", {})
        if not options.get("num_gpus"):
            continue
        most = deployment.get("autoscaling_config", {}).get("max_replicas", deployment.get("num_replicas", 1))
        pool = {*options.get("resources", {}), options.get("accelerator_type")} - {None}
        a_node = deployment.get("max_replicas_per_node")
        found.append(Share(deployment["name"], options["num_gpus"], most, a_node, frozenset(pool)))
    return found


def pools(deployments: Sequence[Share]) -> dict[frozenset[str], list[Share]]:
    """Deployments that may meet on a card, by what their nodes must have."""
    found: dict[frozenset[str], list[Share]] = {}
    for share in deployments:
        found.setdefault(share.pool, []).append(share)
    return found


def together(deployments: Sequence[Share]) -> Iterator[Mix]:
    """Every mix of replicas of one pool that may come to lie on one card; nodes have one card where `a_node` is set."""
    for counts in product(*(range(_most_on_card(share) + 1) for share in deployments)):
        filled = sum(count * share.parts for count, share in zip(counts, deployments, strict=True))
        if any(counts) and filled <= _PARTS:
            yield {share.name: count for count, share in zip(counts, deployments, strict=True) if count}


def stuck(deployments: Sequence[Share], cards: int) -> tuple[str, list[Mix]] | None:
    """A replica of one pool that may find no place, and the cards as they are then; None where all always find one."""
    limits = Counter({share.name: share.most for share in deployments})
    empty: tuple[tuple[int, ...], ...] = ((0,) * len(deployments),) * cards
    seen, waiting = {empty}, [empty]
    while waiting:
        state = waiting.pop()
        for index, share in enumerate(deployments):
            if sum(card[index] for card in state) >= limits[share.name]:
                continue
            after = {_with(state, place, index) for place in range(cards) if _room(deployments, state[place], index)}
            if not after:
                return share.name, [_mix(deployments, card) for card in state]
            waiting += after - seen
            seen |= after
    return None


def _most_on_card(share: Share) -> int:
    most = min(share.most, _PARTS // share.parts)
    return most if share.a_node is None else min(most, share.a_node)


def _room(deployments: Sequence[Share], card: Sequence[int], index: int) -> bool:
    filled = sum(count * share.parts for count, share in zip(card, deployments, strict=True))
    share = deployments[index]
    return filled + share.parts <= _PARTS and card[index] < _most_on_card(share)


def _with(state: tuple[tuple[int, ...], ...], place: int, index: int) -> tuple[tuple[int, ...], ...]:
    """One replica more on a card; cards are alike, so only what lies on them counts."""
    card = tuple(count + (number == index) for number, count in enumerate(state[place]))
    return tuple(sorted((*state[:place], card, *state[place + 1 :])))


def _mix(deployments: Sequence[Share], card: Sequence[int]) -> Mix:
    return {share.name: count for count, share in zip(card, deployments, strict=True) if count}
