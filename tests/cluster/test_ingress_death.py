"""The ingress replica that answers is killed: its listeners go on with another one, from the sample where they were."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import httpx
import numpy as np
import pytest
from ray import serve

from deployments.client import CosyVoiceClient
from deployments.local import LocalService
from deployments.messages import StreamCutError
from tests.cluster.test_service import LONG, pcm, running, wait_until

TEXT = " ".join([LONG] * 3)


def kill_ingress(service: LocalService) -> None:
    info = serve.get_deployment_handle("Ingress", service.app_name).info.remote().result(timeout_s=30)
    os.kill(info.process, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _whole_afterwards(service: LocalService) -> Iterator[None]:
    yield
    wait_until(lambda: serve.status().applications[service.app_name].status == "RUNNING", 60)


def test_a_listener_by_handle_hears_all_as_if_nothing_had_happened(
    service: LocalService, client: CosyVoiceClient
) -> None:
    """And the stages that served the lost replica stop."""
    with client.speak(TEXT, voice="demo_male", seed=31) as stream:
        expected = stream.read()
    with client.speak(TEXT, voice="demo_male", seed=31) as stream:
        chunks = iter(stream)
        heard = [next(chunks)]
        # Amid the second segment.
        while sum(map(len, heard)) < expected.size * 0.4:
            heard.append(next(chunks))
        kill_ingress(service)
        heard.extend(chunks)
    actual = np.concatenate(heard)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-3
    wait_until(lambda: not any(running(service).values()), 10)


async def test_a_text_that_is_being_written_ends_with_a_clear_error(service: LocalService) -> None:
    client = CosyVoiceClient(service.app_name)

    async def words() -> AsyncIterator[str]:
        for word in TEXT.split(" "):
            yield f"{word} "
            await asyncio.sleep(0.1)

    with pytest.raises(StreamCutError):
        async with client.speak_stream(words(), voice="demo_male") as stream:
            heard = 0
            async for _ in stream:
                heard += 1
                if heard == 1:
                    await asyncio.to_thread(kill_ingress, service)
    assert heard >= 1


def test_a_client_over_http_asks_for_the_rest(service: LocalService) -> None:
    """It has the seed from the first answer's header, and knows how many samples came."""
    url, body = f"{service.url}/v1/audio/speech", {"input": TEXT, "voice": "demo_male", "response_format": "pcm"}
    heard = b""
    with httpx.Client(timeout=120) as web:
        try:
            with web.stream("POST", url, json=body) as answer:
                seed = int(answer.headers["x-seed"])
                for data in answer.iter_raw():
                    if not heard:
                        kill_ingress(service)
                    heard += data
        except httpx.TransportError:
            pass
        whole = web.post(url, json={**body, "seed": seed})
        assert 0 < len(heard) < len(whole.content)
        samples = len(heard) // 2
        rest = web.post(url, json={**body, "seed": seed, "resume_from_sample": samples})
    assert (whole.status_code, rest.status_code) == (200, 200), rest.text
    joined = np.concatenate([pcm(heard[: 2 * samples]), pcm(rest.content)])
    assert joined.shape == pcm(whole.content).shape
    assert np.abs(joined - pcm(whole.content)).max() < 1e-3
