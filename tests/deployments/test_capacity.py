"""What an ingress replica knows of the stages' speed, on a clock of the test's own."""

from __future__ import annotations

import pytest

from deployments.ingress.admission.capacity import Capacity


class Stages:
    """Utterances at once that are made at a rate together, told in chunks as stages send them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.capacity = Capacity(memory_s=5.0, believed_s=60.0, clock=lambda: self.now)

    def work(self, utterances: int, rate: float, seconds: float, chunk_s: float = 1.0) -> None:
        """rate: audio seconds per second of all together."""
        for _ in range(utterances):
            self.capacity.began()
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now += chunk_s / rate
            self.capacity.made(chunk_s)
        for _ in range(utterances):
            self.capacity.ended()

    def rest(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def stages() -> Stages:
    return Stages()


def test_nothing_is_believed_before_there_is_evidence(stages: Stages) -> None:
    assert stages.capacity.rate is None
    stages.work(1, 4.0, 1.0)
    assert stages.capacity.rate is None
    stages.work(1, 4.0, 2.0)
    assert stages.capacity.rate == pytest.approx(4.0, rel=0.1)


def test_time_without_work_is_not_slowness(stages: Stages) -> None:
    for _ in range(10):
        stages.work(1, 4.0, 1.0)
        stages.rest(5.0)
    assert stages.capacity.rate == pytest.approx(4.0, rel=0.1)


def test_what_many_get_together_is_known_while_few_are_made(stages: Stages) -> None:
    stages.work(1, 4.0, 10.0)
    stages.work(8, 20.0, 10.0)
    stages.work(1, 4.0, 10.0)
    assert stages.capacity.rate == pytest.approx(20.0, rel=0.1)


def test_a_rate_at_few_is_not_taken_for_more_than_it_was_at_many(stages: Stages) -> None:
    stages.work(16, 3.0, 10.0)
    for _ in range(16):
        stages.capacity.began()
    assert stages.capacity.rate == pytest.approx(3.0, rel=0.1)


def test_slower_stages_are_slower_at_all_sizes_of_load(stages: Stages) -> None:
    stages.work(8, 20.0, 20.0)
    stages.work(1, 4.0, 20.0)
    stages.work(1, 2.0, 30.0)
    assert stages.capacity.rate == pytest.approx(10.0, rel=0.15)


def test_a_new_replica_counts_as_soon_as_it_works(stages: Stages) -> None:
    stages.work(8, 4.0, 20.0)
    stages.work(8, 8.0, 20.0)
    assert stages.capacity.rate == pytest.approx(8.0, rel=0.1)


def test_what_was_not_seen_for_long_is_not_believed(stages: Stages) -> None:
    stages.work(8, 20.0, 10.0)
    stages.rest(61.0)
    stages.work(1, 4.0, 5.0)
    assert stages.capacity.rate == pytest.approx(4.0, rel=0.1)


def test_more_than_were_ever_made_at_once_get_what_fewer_got(stages: Stages) -> None:
    stages.work(2, 6.0, 10.0)
    for _ in range(8):
        stages.capacity.began()
    assert stages.capacity.rate == pytest.approx(6.0, rel=0.1)
