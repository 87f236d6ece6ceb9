"""What may come to lie on a card, and replicas that find no place."""

from __future__ import annotations

from itertools import permutations, product

import pytest

from deployments.placement import Mix, Share, pools, shares, stuck, together
from tests.config.files import ROOT, application


def mixes(*deployments: Share) -> set[tuple[tuple[str, int], ...]]:
    return {tuple(sorted(mix.items())) for mix in together(deployments)}


def test_fractions_bound_who_shares_a_card() -> None:
    found = mixes(Share("big", 0.6, 3), Share("small", 0.2, 3))
    assert (("big", 1), ("small", 2)) in found
    assert (("big", 1), ("small", 3)) not in found
    assert (("big", 2),) not in found
    assert (("small", 3),) in found


def test_fractions_that_add_up_to_one_fit_in_spite_of_binary_rounding() -> None:
    assert (("a", 1), ("b", 1), ("c", 1)) in mixes(Share("a", 0.4, 1), Share("b", 0.4, 1), Share("c", 0.2, 1))
    assert (("a", 10),) in mixes(Share("a", 0.1, 10))


def test_a_bound_per_node_holds() -> None:
    assert mixes(Share("a", 0.3, 4, a_node=1)) == {(("a", 1),)}


def test_small_replicas_can_leave_a_large_one_without_a_place() -> None:
    """Three cards have room for all of them, but not in every order."""
    found = stuck([Share("flow", 0.7, 3), Share("vocoder", 0.3, 3)], cards=3)
    assert found is not None
    name, cards = found
    assert name == "flow"
    assert sum(card.get("vocoder", 0) for card in cards) > len([card for card in cards if card.get("vocoder")])


@pytest.mark.parametrize("cards", [1, 2, 3])
def test_stuck_agrees_with_trying_every_order(cards: int) -> None:
    cases = product((0.3, 0.5, 0.6), (0.2, 0.5), (1, 2), (1, 2))
    outcomes = set()
    for big, small, bigs, smalls in cases:
        deployments = [Share("big", big, bigs), Share("small", small, smalls)]
        expected = _some_order_fails(deployments, cards)
        assert (stuck(deployments, cards) is not None) == expected, (big, small, bigs, smalls)
        outcomes.add(expected)
    assert outcomes == {True, False}


def _some_order_fails(deployments: list[Share], cards: int) -> bool:
    """By brute force: all orders of replicas, all choices of a card with room."""
    replicas = [share for share in deployments for _ in range(share.most)]

    def places(order: tuple[Share, ...], free: tuple[int, ...]) -> bool:
        if not order:
            return True
        head, *rest = order
        fits = [card for card in range(cards) if free[card] >= head.parts]
        return bool(fits) and all(
            places(tuple(rest), tuple(left - head.parts * (card == place) for card, left in enumerate(free)))
            for place in fits
        )

    return not all(places(order, (10_000,) * cards) for order in permutations(replicas))


def test_every_replica_of_the_four_gpu_config_finds_a_place_in_any_order() -> None:
    deployments = shares(application(ROOT / "config" / "four_gpus.yaml"))
    assert stuck(deployments, cards=4) is None
    assert stuck(deployments, cards=3) is not None
    alone: list[Mix] = [mix for mix in together(deployments) if "SpeechLM" in mix]
    assert alone
    assert not [mix for mix in alone if "FlowDecoder" in mix]


def test_the_one_gpu_config_finds_its_places_on_one_card() -> None:
    assert stuck(shares(application(ROOT / "config" / "gpu.yaml")), cards=1) is None


def test_pools_of_the_heterogeneous_config_never_meet_and_fill_their_nodes() -> None:
    found = pools(shares(application(ROOT / "config" / "heterogeneous.yaml")))
    assert {frozenset({"language_model"}), frozenset({"acoustic"})} == set(found)
    for members in found.values():
        assert stuck(members, cards=max(share.most for share in members)) is None
        assert {share.a_node for share in members if share.fraction < 1} <= {1}
