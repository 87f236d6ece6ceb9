"""Pages: given out side by side, shared by readers, free when nobody holds them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_core.flow.pages import PagePool, Run, runs


def take(pool: PagePool, count: int) -> list[int]:
    pages: list[int] = []
    for _ in range(count):
        page = pool.take(pages[-1] if pages else None)
        assert page is not None
        pages.append(page)
    return pages


def test_pages_of_one_stream_lie_side_by_side() -> None:
    pool = PagePool(40)
    first, second = take(pool, 5), take(pool, 5)
    assert [len(runs(pages)) for pages in (first, second)] == [1, 1]
    first.extend(page for _ in range(5) if (page := pool.take(first[-1])) is not None)
    assert len(runs(first)) == 1


def test_an_empty_pool_gives_nothing() -> None:
    pool = PagePool(3)
    take(pool, 3)
    assert pool.take() is None
    assert PagePool(0).take() is None


def test_a_shared_page_is_free_when_the_last_reader_gives_it_back() -> None:
    pool = PagePool(2)
    page = take(pool, 1)
    pool.hold(page)
    pool.give(page)
    assert pool.free == 1
    pool.give(page)
    assert pool.free == 2


def test_a_page_that_nobody_holds_can_be_neither_shared_nor_given_back() -> None:
    pool = PagePool(1)
    with pytest.raises(ValueError, match="free"):
        pool.hold([0])
    with pytest.raises(ValueError, match="already"):
        pool.give([0])


def test_runs_keep_the_order() -> None:
    assert runs([4, 5, 6, 2, 3, 9]) == [Run(4, 7), Run(2, 4), Run(9, 10)]
    assert runs([]) == []


@given(st.integers(0, 12), st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60))
def test_no_page_is_held_twice_and_none_is_lost(count: int, actions: list[tuple[bool, int]]) -> None:
    pool = PagePool(count)
    held: dict[int, list[int]] = {}
    for takes, owner in actions:
        pages = held.setdefault(owner, [])
        if takes:
            page = pool.take(pages[-1] if pages else None)
            assert (page is None) == (sum(map(len, held.values())) == count)
            if page is not None:
                assert all(page not in others for others in held.values())
                pages.append(page)
        else:
            pool.give(held.pop(owner))
        assert pool.free == count - sum(map(len, held.values()))
