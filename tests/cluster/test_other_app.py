"""Another Serve app in the same cluster speaks through the service: by the app's name, and by a handle it was given."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.client import CosyVoiceClient
from deployments.local import LocalService

SENTENCE = "Good morning, how are you today."
LONG = "The train leaves at nine in the morning and arrives in the city late in the afternoon after many stops. "
APP = "other"


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Caller:
    """An app that turns a question into speech; here it counts what it hears."""

    def __init__(self, app_name: str, ingress: DeploymentHandle | None) -> None:
        self._client = CosyVoiceClient(app_name, ingress)

    async def heard(self, text: str, at_most: int | None) -> list[int]:
        """Lengths of the chunks of `text`, of which no more than `at_most` are listened to."""
        lengths: list[int] = []
        async with self._client.speak(text, voice="demo_male", seed=1, realtime=False) as stream:
            async for chunk in stream:
                lengths.append(len(chunk))
                if len(lengths) == at_most:
                    break
        return lengths


@pytest.fixture(params=["by name", "by handle"])
def caller(service: LocalService, request: pytest.FixtureRequest) -> Iterator[DeploymentHandle]:
    ingress = serve.get_app_handle(service.app_name) if request.param == "by handle" else None
    try:
        yield serve.run(Caller.bind(service.app_name, ingress), name=APP, route_prefix=None)
    finally:
        serve.delete(APP)


def test_it_hears_what_a_script_hears(caller: DeploymentHandle, client: CosyVoiceClient) -> None:
    with client.speak(SENTENCE, voice="demo_male", seed=1, realtime=False) as stream:
        expected = len(stream.read())
    assert sum(caller.heard.remote(SENTENCE, None).result(timeout_s=60)) == expected > 24000


def test_leaving_stops_the_stages(service: LocalService, caller: DeploymentHandle) -> None:
    vocoder = serve.get_deployment_handle("Vocoder", service.app_name)
    assert len(caller.heard.remote(LONG * 20, 1).result(timeout_s=60)) == 1
    deadline = time.monotonic() + 30
    while vocoder.info.remote().result(timeout_s=30).running:
        assert time.monotonic() < deadline, "the vocoder still works for a listener who left"
        time.sleep(0.05)
