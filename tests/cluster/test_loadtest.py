"""The load test against the real service, through every door there is a client for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median

import pytest

from deployments.client import CosyVoiceClient
from deployments.local import LocalService
from loadtest.doors.connection import connections
from loadtest.doors.registry import DOORS, Service, open_doors
from loadtest.prompt_audio import PromptAudio
from loadtest.record import ErrorKind, Record
from loadtest.report import Report
from loadtest.request import PlannedRequest
from loadtest.runner import Hearing
from loadtest.scenario import Scenario
from loadtest.session import Target, load_test
from tests.cluster.test_service import running, wait_until


@pytest.fixture(scope="module")
def prompt(demo_checkpoint: Path) -> PromptAudio:
    return PromptAudio.from_file(demo_checkpoint / "prompts" / "demo_deep.wav")


def scenario(**fields: object) -> Scenario:
    plain = {"name": "test", "warm_up_s": 0, "duration_s": 10, "load": {"kind": "closed", "users": [4]}}
    return Scenario.model_validate({**plain, **fields})


async def measured(service: LocalService, asked: Scenario, prompt: PromptAudio | None = None) -> Report:
    async with load_test(asked, Target(service.url, service.app_name, prompt)) as test:
        return await test.run(lambda _level: lambda _seconds, _running, _done: None)


async def test_every_door_is_heard_and_accounts_for_its_first_audio(service: LocalService, prompt: PromptAudio) -> None:
    mix = {
        "doors": dict.fromkeys(DOORS, 1),
        "voices": {"known": 2, "repeated": 1, "new": 1},
        "lengths": {"short": 1, "sentence": 1},
    }
    # Arrivals are decided before, so that a slow machine hears all of them too.
    asked = scenario(mix=mix, duration_s=20, load={"kind": "poisson", "rates": [1.2]})
    (level,) = (await measured(service, asked, prompt)).levels
    assert level.summary.errors == {}
    assert {record.door for record in level.records} == set(DOORS)
    assert {record.voice_kind for record in level.records} == {"known", "repeated", "new"}
    for record in level.records:
        first = record.first_audio_s
        assert first is not None
        assert record.audio_s > 0.3
        assert record.request_id.startswith("loadtest-") or "handle" in record.door
        stages = {stage.name: stage.seconds for stage in record.stages}
        for name in ("lm", "flow", "vocoder"):
            assert stages[name] > 0, record
        assert all(seconds > -0.001 for seconds in stages.values()), stages
        # An unstreamed answer is sent when all of it is there, which is long after its first audio.
        assert sum(stages.values()) < first + 0.001
    # A known voice is looked up, a new one computed; on a busy machine the look-up may have to wait for its turn.
    known, new = ([voice(one) for one in level.records if one.voice_kind == kind] for kind in ("known", "new"))
    assert min(known) < 0.05
    assert median(known) < median(new)
    assert max(new) > 0.01


def voice(record: Record) -> float:
    return sum(stage.seconds for stage in record.stages if stage.name == "voice")


async def test_streamed_answers_explain_most_of_the_wait(service: LocalService) -> None:
    (level,) = (await measured(service, scenario(load={"kind": "closed", "users": [1]}))).levels
    for record in level.records:
        first = record.first_audio_s
        assert first is not None
        assert sum(stage.seconds for stage in record.stages) > 0.6 * first


async def test_listeners_who_leave_stop_all_stages(service: LocalService) -> None:
    mix = {"doors": {"http-pcm": 1, "handle": 1, "handle-text": 1}, "lengths": {"paragraph": 1}, "cancels": 1.0}
    asked = scenario(mix={**mix, "cancel_within_s": 2}, load={"kind": "bursts", "rates": [2], "size": 4}, duration_s=4)
    (level,) = (await measured(service, asked)).levels
    assert level.records
    assert all(record.left for record in level.records)
    assert level.summary.errors == {}
    await asyncio.to_thread(wait_until, lambda: not any(running(service).values()), 5)


async def test_the_services_refusal_is_told_as_one_by_both_kinds_of_door(service: LocalService) -> None:
    async with connections(service.url) as web:
        doors = await open_doors(DOORS, Service(web, service.app_name, None))
        for name, door in doors.items():
            request = PlannedRequest(1, "loadtest-x-1", name, "en", "short", "Hello.", "known", "nobody", None, 1)
            hearing = Hearing(request, door, asyncio.get_running_loop().time(), 30)
            await hearing.listen()
            record = hearing.record(0.0, warm_up=False)
            assert record.failure is not None, name
            assert record.failure.kind is ErrorKind.REFUSED, (name, record.failure)
            assert "demo_female" in record.failure.detail


async def test_the_client_tells_where_the_first_audios_time_went(client: CosyVoiceClient) -> None:
    async with client.speak("Good morning.", voice="demo_male", seed=1) as stream:
        assert stream.first_audio is None
        async for _ in stream:
            break
        told = stream.first_audio
    assert told is not None
    assert told.total_s == pytest.approx(sum(seconds for _, seconds in told.parts))
    assert len(told.request_id) == 32
