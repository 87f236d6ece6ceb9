"""Readiness as the controller knows it, also while it does not answer."""

from __future__ import annotations

import threading

from deployments.ingress.readiness import StageStates

STAGES = ("SpeechLM", "Vocoder")


async def test_a_stage_without_a_ready_replica_is_named() -> None:
    replicas = {"SpeechLM": 0, "Vocoder": 2, "Ingress": 1}
    states = StageStates(STAGES, lambda: dict(replicas))
    assert await states.without_replica() == ("SpeechLM",)
    replicas["SpeechLM"] = 1
    assert await states.without_replica() == ()
    del replicas["Vocoder"]
    assert await states.without_replica() == ("Vocoder",)


async def test_a_controller_that_fails_leaves_what_was_known() -> None:
    answers = iter([{"SpeechLM": 1}])
    states = StageStates(STAGES, lambda: next(answers))
    assert await states.without_replica() == ("Vocoder",)
    assert await states.without_replica() == ("Vocoder",)


async def test_nothing_known_is_not_ready() -> None:
    assert await StageStates(STAGES, lambda: {}["no such application"]).without_replica() == STAGES


async def test_one_question_at_a_time_and_none_hangs() -> None:
    asked: list[int] = []
    answer = threading.Event()

    def ask() -> dict[str, int]:
        asked.append(1)
        answer.wait()
        return {"SpeechLM": 1, "Vocoder": 1}

    states = StageStates(STAGES, ask, timeout_s=0.05)
    assert await states.without_replica() == STAGES
    assert await states.without_replica() == STAGES
    assert len(asked) == 1
    answer.set()
    while await states.without_replica():
        pass
