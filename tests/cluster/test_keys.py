"""Keys and quotas over two ingress replicas: counted in one place, which frees what a lost one held and may be lost.

A second application in the shared cluster: real doors and the real `Quotas`, before the stages of the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml
from ray import serve
from ray.util import list_named_actors

from deployments.app import quotas
from deployments.args import AppArgs, SecurityArgs
from deployments.ingress.callers import Caller
from deployments.ingress.deployment import Ingress
from deployments.ingress.keys import hash_of, new_key
from deployments.local import LocalService
from deployments.voices.args import VoicesArgs

APP = "keyed"
KEY = new_key()
LONG = "The train leaves at nine in the morning and arrives in the city late in the afternoon after many stops. " * 60
ACME = Caller("acme", max_streams=2)


def replicas(deployment: str) -> list[tuple[str, str]]:
    """Name and namespace of each, as Serve names its actors."""
    actors = list_named_actors(all_namespaces=True)
    prefix = f"SERVE_REPLICA::{APP}#{deployment}#"
    return [(one["name"], one["namespace"]) for one in actors if one["name"].startswith(prefix)]


def kill(replica: tuple[str, str]) -> None:
    name, namespace = replica
    ray.kill(ray.get_actor(name, namespace=namespace), no_restart=True)


@pytest.fixture(scope="module")
def url(service: LocalService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": [{"name": "acme", "sha256": hash_of(KEY), "max_streams": 2}]}))
    # On a busy machine an answer may take its time; that there is none is tested without Ray.
    voices = VoicesArgs(url=str(tmp_path_factory.mktemp("voices")))
    args = AppArgs(security=SecurityArgs(keys_file=str(file), quota_timeout_s=60), voices=voices)
    stages = [
        serve.get_deployment_handle(name, service.app_name)
        for name in ("VoiceEncoder", "SpeechLM", "FlowDecoder", "Vocoder")
    ]
    ingress = serve.deployment(
        serve.ingress()(Ingress), name="Ingress", num_replicas=2, ray_actor_options={"num_cpus": 0.1}
    )
    try:
        serve.run(ingress.bind(args, *stages, quotas()), name=APP, route_prefix=f"/{APP}")
        yield f"{service.url}/{APP}"
    finally:
        serve.delete(APP)


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=120, headers={"x-api-key": KEY}) as client:
        yield client


async def counted() -> int:
    streams: int = await serve.get_deployment_handle("Quotas", APP).streams.remote(ACME)
    return streams


async def until(true: Callable[[int], bool], timeout_s: float = 120) -> None:
    async with asyncio.timeout(timeout_s):
        while not true(await counted()):  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(0.1)


@asynccontextmanager
async def listening(client: httpx.AsyncClient, text: str = LONG) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    """An answer's status and its sound, whose first bytes have come."""
    body: dict[str, Any] = {"input": text, "voice": "demo_male", "response_format": "pcm"}
    async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
        sound = answer.aiter_raw()
        await anext(sound)
        yield answer.status_code, sound


async def test_only_who_has_a_key_comes_in(client: httpx.AsyncClient, url: str) -> None:
    assert (await client.get("/v1/audio/voices")).status_code == 200
    async with httpx.AsyncClient(base_url=url, timeout=60) as stranger:
        assert (await stranger.get("/health")).status_code == 200
        assert (await stranger.get("/v1/audio/voices")).status_code == 401


async def test_a_voice_that_one_replica_saves_is_every_replica_s_until_it_is_removed(
    client: httpx.AsyncClient, prompts: Path
) -> None:
    async def asked() -> set[int]:
        """Statuses of requests with the voice, by enough of them that each replica has some."""
        body = {"input": "Hello.", "voice": "mine", "stream": False, "response_format": "pcm"}
        answers = await asyncio.gather(*(client.post("/v1/audio/speech", json=body) for _ in range(12)))
        return {answer.status_code for answer in answers} - {429}

    audio = {"audio": ("a.wav", (prompts / "demo_deep.wav").read_bytes(), "audio/wav")}
    assert await asked() == {400}
    saved = await client.post("/v1/audio/voices", data={"name": "mine"}, files=audio)
    assert (saved.status_code, saved.json()["id"]) == (201, "acme:mine")
    assert await asked() == {200}
    assert (await client.delete("/v1/audio/voices/mine")).status_code == 200
    # How old a replica's list may be.
    await asyncio.sleep(1)
    assert await asked() == {400}


async def test_streams_are_counted_over_all_replicas(client: httpx.AsyncClient) -> None:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(listening(client)) for _ in range(6)]
        assert [status for status, _ in opened] == [200, 200, 429, 429, 429, 429]
        assert await counted() == 2
    # Whoever leaves makes room.
    await until(lambda streams: streams == 0)
    async with listening(client) as (status, _):
        assert status == 200
    await until(lambda streams: streams == 0)


async def test_the_lease_of_a_lost_replica_is_freed(client: httpx.AsyncClient) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(listening(client))
        assert await counted() == 2
        for replica in replicas("Ingress"):
            kill(replica)
        await until(lambda streams: streams == 0)


async def test_a_lost_count_is_told_again_and_cuts_nobody(client: httpx.AsyncClient) -> None:
    async with listening(client) as (status, sound):
        assert status == 200
        (before,) = replicas("Quotas")
        kill(before)
        await until(lambda streams: streams == 1)
        assert replicas("Quotas") != [before]
        assert len(await anext(sound)) > 0
    await until(lambda streams: streams == 0)
