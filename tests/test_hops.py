"""Token hops: where they end, and that a replayed history leaves like fresh tokens."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.hops import HopCutter, HopPlan

FLOW = FlowConfig()


@given(prompt=st.integers(0, 200), least=st.integers(1, 60), most=st.integers(25, 200))
def test_hops_end_where_a_chunk_and_its_look_ahead_are_complete(prompt: int, least: int, most: int) -> None:
    ends = list(islice(HopPlan(least, most).ends(prompt, FLOW), 8))
    assert all((prompt + end - FLOW.lookahead_tokens) % FLOW.chunk_tokens == 0 for end in ends)
    assert least <= ends[0] - FLOW.lookahead_tokens < least + FLOW.chunk_tokens
    steps = [b - a for a, b in pairwise(ends)]
    assert steps[0] == FLOW.chunk_tokens
    assert steps == sorted(steps)
    assert max(steps) <= max(most, FLOW.chunk_tokens)


def test_the_first_hop_is_as_small_as_the_mask_allows() -> None:
    assert next(HopPlan(1, 50).ends(20, FLOW)) == 5 + 3
    assert next(HopPlan(6, 50).ends(20, FLOW)) == 30 + 3
    assert next(HopPlan(15, 50).ends(0, FLOW)) == 25 + 3


@given(pieces=st.lists(st.lists(st.integers(0, 9), max_size=40), max_size=8), known=st.integers(0, 60))
def test_no_token_is_lost_or_moved(pieces: list[list[int]], known: int) -> None:
    tokens = [token for piece in pieces for token in piece]
    cutter = HopCutter(HopPlan().ends(0, FLOW), tokens[:known])
    hops: list[tuple[int, ...]] = []
    seen = 0
    for piece in pieces:
        fresh = piece[max(known - seen, 0) :]
        seen += len(piece)
        hops.extend(cutter.add(fresh))
    ends = HopPlan().ends(0, FLOW)
    total = 0
    for hop in hops:
        total += len(hop)
        assert total == next(ends)
    assert [token for hop in (*hops, cutter.rest()) for token in hop] == tokens


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        HopPlan(0)
    with pytest.raises(ValueError, match="at least 1"):
        HopPlan(1, 0)
