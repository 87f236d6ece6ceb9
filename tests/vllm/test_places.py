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
    clock.now += 0.5
    new.took(250)
    assert new.deadline == clock.now + 10.5
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


def test_a_listener_who_ran_dry_goes_on_from_now(places: Places, clock: Clock) -> None:
    place = talking(places, 25)
    clock.now += 10
    place.took(50)
    assert place.deadline == clock.now + 2


class Rest:
    """A place at rest, and whether it was woken."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def test_one_that_rests_is_woken_by_the_first_that_finds_no_room(places: Places) -> None:
    places.count = 2
    resting = [Rest(talking(places, 25)) for _ in range(2)]
    with resting[0].place.resting(resting[0].wake), resting[1].place.resting(resting[1].wake):
        assert [rest.woken for rest in resting] == [0, 0]
        new = Place(places)
        new.ask()
        assert [rest.woken for rest in resting] == [1, 0]
        assert [rest.place.wanted for rest in resting] == [True, False]
        resting[0].place.released()
        Place(places).ask()
        assert [rest.woken for rest in resting] == [1, 1]
    assert places.resting == {}
    assert not resting[0].place.wanted


def test_one_that_comes_to_rest_while_another_waits_is_woken_at_once(places: Places) -> None:
    rest = Rest(talking(places, 25))
    Place(places).ask()
    assert not rest.place.should_yield()
    with rest.place.resting(rest.wake):
        assert rest.woken == 1
    with rest.place.resting(rest.wake):
        assert rest.woken == 1, "the one who waited counts as helped"


def test_to_release_twice_is_to_release_once(places: Places) -> None:
    place = talking(places, 1)
    place.released()
    place.released()
    assert places.asking == 0
