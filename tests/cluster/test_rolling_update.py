"""The service is changed while it speaks: in place where that can be, else replica by replica, and no stream is cut."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from ray import serve

from deployments.client import CosyVoiceClient
from deployments.local import LocalService, redeploy
from deployments.messages import StageInfo
from tests.cluster.test_service import LONG
from tests.cluster_state import application, until
from tests.listeners import Call, Heard, listen, references

# Three segments, of which the last begin after the change; and one utterance of seconds, written while it is spoken.
CALLS = [
    Call(" ".join([LONG] * 3), options=(("seed", 21),)),
    Call(LONG, options=(("seed", 22), ("realtime", False))),
    Call(LONG, written=True, options=(("seed", 23),)),
]


@pytest.fixture
def config(service: LocalService, deployed_config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """To be changed and deployed; all is as it was afterwards, on replicas that may be new."""
    deployed = copy.deepcopy(deployed_config)
    yield copy.deepcopy(deployed)
    for deployment in deployed["applications"][0]["deployments"]:
        deployment["user_config"] = {}
    redeploy(deployed)


def processes(service: LocalService) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for replica in application(service.app_name).replicas:
        found.setdefault(replica.deployment, set()).add(replica.process)
    return found


def ingress_info(service: LocalService) -> StageInfo:
    info: StageInfo = serve.get_deployment_handle("Ingress", service.app_name).info.remote().result(timeout_s=30)
    return info


async def speaking(client: CosyVoiceClient) -> list[asyncio.Task[Heard]]:
    """Listeners who have all heard something and will hear more."""
    begun = [asyncio.Event() for _ in CALLS]
    tasks = [asyncio.create_task(listen(client, call, begun=event)) for call, event in zip(CALLS, begun, strict=True)]
    await asyncio.gather(*(event.wait() for event in begun))
    return tasks


async def all_heard_everything(tasks: list[asyncio.Task[Heard]], expected: list[Any]) -> None:
    for heard, audio in zip(await asyncio.gather(*tasks), expected, strict=True):
        heard.compare(audio)
        assert heard.problem == "", heard.call


async def test_user_config_counts_at_once_on_the_same_replicas(
    service: LocalService, client: CosyVoiceClient, config: dict[str, Any]
) -> None:
    expected = await references(client, CALLS)
    before = await asyncio.to_thread(processes, service)
    tasks = await speaking(client)
    deployments = {one["name"]: one for one in config["applications"][0]["deployments"]}
    deployments["Ingress"]["user_config"] = {"playback": {"pause_s": 0.5}, "limits": {"max_text_chars": 400}}
    deployments["FlowDecoder"]["user_config"] = {"flow": {"max_batch": 2}}
    deployments["SpeechLM"]["user_config"] = {"lm": {"text_idle_timeout_s": 20}}
    await asyncio.to_thread(redeploy, config)
    await all_heard_everything(tasks, expected)
    two = Call("Good morning. How are you today?", options=(("seed", 1),))
    with_pause = await listen(client, two)
    without = await listen(client, Call(two.text, options=(*two.options, ("pause_s", 0.0))))
    assert with_pause.audio.size == without.audio.size + 12000
    assert "at most 400" in (await listen(client, Call("word " * 100))).problem
    assert await asyncio.to_thread(processes, service) == before


async def test_replicas_are_replaced_one_after_another_and_nobody_notices(
    service: LocalService, client: CosyVoiceClient, config: dict[str, Any]
) -> None:
    """Of all five deployments, as each has the application's arguments."""
    expected = await references(client, CALLS)
    before = await asyncio.to_thread(processes, service)
    config["applications"][0]["args"]["voice_cache_bytes"] = 32 * 2**20

    tasks: list[asyncio.Task[Heard]] = []
    updating = asyncio.create_task(asyncio.to_thread(redeploy, config))
    # New ones come until the end, to replicas of either kind.
    while not updating.done():
        tasks += await speaking(client)
        await asyncio.wait({updating}, timeout=2)
    await updating
    assert len(tasks) > len(CALLS)
    await all_heard_everything(tasks, expected * (len(tasks) // len(CALLS)))

    def replaced() -> bool:
        now = processes(service)
        return now.keys() == before.keys() and all(not now[name] & before[name] for name in now)

    assert await until(replaced, 60)


async def test_a_replica_refuses_a_wrong_config_says_so_and_goes_on(
    service: LocalService, client: CosyVoiceClient, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployed by Serve's own means, which know nothing of what may change."""
    before = await asyncio.to_thread(processes, service)
    deployments = {one["name"]: one for one in config["applications"][0]["deployments"]}
    deployments["Ingress"]["user_config"] = {"playback": {"pause_s": -1}}
    monkeypatch.setattr("deployments.local.check_user_configs", lambda _application: None)
    await asyncio.to_thread(redeploy, config)
    assert await until(lambda: "playback.pause_s" in ingress_info(service).config_problem, 30)
    health = await asyncio.to_thread(httpx.get, f"{service.url}/health?stages=true", timeout=30)
    assert "playback.pause_s" in health.json()["config_problem"]
    assert (await listen(client, CALLS[1])).problem == ""
    assert await asyncio.to_thread(processes, service) == before
