"""Quotas: what is counted, what is refused and until when, and what holds when the place that counts is away."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from deployments.ingress.callers import ANYONE, Caller
from deployments.ingress.errors import answer_for
from deployments.mailbox import OverloadedError
from deployments.quotas.holder import QuotaHolder
from deployments.quotas.ledger import QuotaError, QuotaLedger


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> QuotaLedger:
    return QuotaLedger(clock=clock)


def refused(ledger: QuotaLedger, caller: Caller, characters: int = 1) -> QuotaError:
    with pytest.raises(QuotaError) as caught:
        ledger.enter(caller, "refused", characters)
    return caught.value


def test_streams_are_free_again_when_they_are_left(ledger: QuotaLedger) -> None:
    caller = Caller("acme", max_streams=2)
    ledger.enter(caller, "a", 10)
    ledger.enter(caller, "b", 10)
    error = refused(ledger, caller)
    assert (error.limit, error.allowed, error.retry_after_s) == ("streams", 2, 1.0)
    ledger.leave(caller, "a")
    ledger.enter(caller, "c", 10)
    assert ledger.streams(caller) == 2
    # One key's use is not another's.
    ledger.enter(Caller("beta", max_streams=1), "d", 10)


def test_a_lease_that_is_renewed_counts_once(ledger: QuotaLedger) -> None:
    caller = Caller("acme", max_streams=1, requests_per_minute=1)
    ledger.enter(caller, "a", 10)
    ledger.enter(caller, "a", 10, known=True)
    ledger.leave(caller, "a")
    assert ledger.streams(caller) == 1
    assert refused(ledger, caller).limit == "streams"
    ledger.leave(caller, "a")
    assert ledger.streams(caller) == 0


def test_requests_come_back_with_time(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Caller("acme", requests_per_minute=30)
    for number in range(30):
        ledger.enter(caller, str(number), 1)
    error = refused(ledger, caller)
    assert (error.limit, error.allowed) == ("requests", 30)
    assert error.retry_after_s == pytest.approx(2)
    clock.now += 1.9
    assert refused(ledger, caller).retry_after_s == pytest.approx(0.1)
    clock.now += 0.2
    ledger.enter(caller, "next", 1)
    # A day of rest allows no more than a minute's worth.
    clock.now += 86400
    for number in range(30):
        ledger.enter(caller, f"later {number}", 1)
    refused(ledger, caller)


def test_a_refusal_costs_nothing(ledger: QuotaLedger) -> None:
    caller = Caller("acme", requests_per_minute=2, characters_per_minute=100)
    ledger.enter(caller, "a", 60)
    assert refused(ledger, caller, 60).limit == "characters"
    ledger.enter(caller, "b", 40)


def test_a_text_longer_than_a_minutes_worth_is_let_in_once_and_paid_for(ledger: QuotaLedger, clock: Clock) -> None:
    caller = Caller("acme", characters_per_minute=100)
    ledger.enter(caller, "long", 300)
    error = refused(ledger, caller, 1)
    assert error.retry_after_s == pytest.approx(201 * 60 / 100)
    clock.now += 121
    ledger.enter(caller, "short", 1)


def test_characters_of_a_growing_text_are_paid_behind(ledger: QuotaLedger) -> None:
    caller = Caller("acme", characters_per_minute=100)
    ledger.enter(caller, "growing", 0)
    ledger.spend(caller, 0, 150)
    assert refused(ledger, caller, 0).limit == "characters"
    ledger.spend(caller, 0, -150)
    ledger.enter(caller, "next", 100)


def test_what_a_key_may_do_can_change(ledger: QuotaLedger, clock: Clock) -> None:
    for number in range(10):
        ledger.enter(Caller("acme", requests_per_minute=10), str(number), 1)
    refused(ledger, Caller("acme", requests_per_minute=20))
    clock.now += 3.1
    ledger.enter(Caller("acme", requests_per_minute=20), "more", 1)
    ledger.enter(Caller("acme"), "unlimited", 1000)


def test_the_answer_says_which_limit_how_much_and_when() -> None:
    error: QuotaError = pickle.loads(pickle.dumps(QuotaError("characters", 500, 7.2)))
    response = answer_for(error).response()
    assert response.status_code == 429
    assert response.headers["retry-after"] == "8"
    answer = answer_for(error)
    assert (answer.kind, answer.code) == ("rate_limit_error", "rate_limit_exceeded")
    assert "500 characters per minute" in answer.message


async def test_a_holder_alone_counts_for_itself() -> None:
    holder, caller = QuotaHolder(), Caller("acme", max_streams=1)
    async with holder.stream(caller, 10):
        with pytest.raises(QuotaError):
            await holder.stream(caller, 10).__aenter__()
    async with holder.stream(caller, 10):
        pass


async def test_a_call_without_room_gets_back_what_it_would_have_used() -> None:
    holder, caller = QuotaHolder(), Caller("acme", requests_per_minute=1, characters_per_minute=10)
    for _ in range(3):
        with pytest.raises(OverloadedError):
            async with holder.stream(caller, 10):
                raise OverloadedError("no room")
    async with holder.stream(caller, 5) as spending:
        spending.characters += 7
    with pytest.raises(QuotaError):
        await holder.stream(caller, 1).__aenter__()


async def test_callers_without_quotas_ask_nobody() -> None:
    # There is no such handle: whoever asked it would fail.
    holder = QuotaHolder(object())
    async with holder.stream(ANYONE, 10), holder.stream(Caller("acme"), 10):
        pass


class Gone:
    """Stands for a handle whose deployment does not answer, which no real one does at will."""

    def __init__(self) -> None:
        self.asked = 0

    def options(self, **_options: object) -> Gone:
        return self

    @property
    def spend(self) -> Gone:
        return self

    def remote(self, *_call: object) -> Gone:
        self.asked += 1
        return self

    async def __anext__(self) -> None:
        await asyncio.sleep(3600)

    def __await__(self) -> object:
        return asyncio.sleep(3600).__await__()

    def cancel(self) -> None:
        pass


async def test_when_quotas_is_away_each_replica_counts_and_soon_stops_asking() -> None:
    gone = Gone()
    holder, caller = QuotaHolder(gone, timeout_s=0.05, ask_again_s=3600), Caller("acme", max_streams=2)
    async with holder.stream(caller, 1), holder.stream(caller, 1):
        assert gone.asked == 1
        with pytest.raises(QuotaError):
            await holder.stream(caller, 1).__aenter__()
    async with holder.stream(caller, 1):
        assert gone.asked == 1
