"""Who gives way to whom, on a clock of our own."""

from __future__ import annotations

import pytest

from deployments.speech_lm.places import Place, Places

pytestmark = pytest.mark.vllm


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def places(clock: Clock) -> Places:
    return Places(count=1, lead_s=2.0, token_rate=25.0, clock=clock)


def talking(places: Places, tokens: int) -> Place:
    place = Place(places)
    place.ask()
    place.took(tokens)
    return place


def test_nobody_gives_way_while_there_is_room(places: Places) -> None:
    assert not talking(places, 1000).should_yield()


def test_far_ahead_gives_way_to_one_new_utterance_once(places: Places) -> None:
    ahead = talking(places, 75)
    new = Place(places)
    new.ask()
    assert new.priority < ahead.priority
    assert ahead.should_yield()
    assert not ahead.should_yield()


def test_who_is_hardly_ahead_stays(places: Places) -> None:
    close = talking(places, 49)
    Place(places).ask()
    assert not close.should_yield()


def test_a_segment_made_ahead_of_its_time_comes_after_who_has_heard_nothing(places: Places, clock: Clock) -> None:
    later = Place(places, lead_s=5.0)
    assert later.deadline == clock.now + 5
    assert Place(places).priority < later.priority
    later.ask()
    later.took(25)
    assert later.deadline == clock.now + 6
    Place(places).ask()
    assert later.should_yield()


def test_who_gave_way_comes_back_in_its_turn(places: Places, clock: Clock) -> None:
    """Its deadline is what its listener still has to hear, so nobody starves: time passes for all."""
    ahead = talking(places, 250)
    new = Place(places)
    new.ask()
    assert ahead.should_yield()
    ahead.released()
    ahead.ask()
    new.took(25)
    assert ahead.deadline == clock.now + 10
    assert not new.should_yield()
    clock.now += 5
    new.took(250)
    assert new.deadline == clock.now + 6
    assert not new.should_yield()
    new.took(100)
    assert new.should_yield()


def test_leaving_makes_room_whoever_leaves(places: Places) -> None:
    ahead, new = talking(places, 75), Place(places)
    new.ask()
    new.released()
    assert not ahead.should_yield()
    ahead.released()
    assert places.asking == 0
    assert places.waiting == {}
