"""What holds a text that is being written is lost: the listener is told, nothing runs on, the next text is spoken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray
from ray import serve

from cosyvoice_core.errors import InputError
from deployments.client import CosyVoiceClient
from deployments.local import LocalService
from deployments.messages import StreamCutError
from tests.cluster.test_service import running, wait_until

BEGINNING = "The train leaves at nine in the morning, and arrives in the city late in the afternoon. It is "


def actors(part: str) -> list[tuple[str, str]]:
    """(name, namespace) of the living actors with `part` in their name."""
    found = ray.util.list_named_actors(all_namespaces=True)
    return [(actor["name"], actor["namespace"]) for actor in found if part in actor["name"]]


def kill(part: str, restart: bool) -> None:
    ((name, namespace),) = actors(part)
    ray.kill(ray.get_actor(name, namespace=namespace), no_restart=not restart)


@contextmanager
def half_written() -> Iterator[Iterator[str]]:
    """A text that stops after its beginning for as long as the context lasts."""
    released = threading.Event()

    def pieces() -> Iterator[str]:
        yield BEGINNING
        released.wait(300)

    try:
        yield pieces()
    finally:
        released.set()


def is_idle(service: LocalService) -> bool:
    return not any(running(service).values())


def test_texts_of_a_lost_mailbox_end_and_new_ones_are_taken(service: LocalService, client: CosyVoiceClient) -> None:
    with half_written() as pieces, client.speak_stream(pieces, voice="demo_male", realtime=False) as stream:
        chunks = iter(stream)
        next(chunks)
        kill("cosyvoice-texts-", restart=True)
        with pytest.raises(InputError, match=r"lost|closed|broke off"):
            list(chunks)
    wait_until(lambda: is_idle(service), 10)
    with client.speak_stream(["Good morning, ", "how are you today."], voice="demo_male") as stream:
        assert len(stream.read()) > 24000


def test_texts_of_a_lost_ingress_free_all_stages(service: LocalService, client: CosyVoiceClient) -> None:
    (mailbox,) = actors("cosyvoice-texts-")
    with half_written() as pieces, client.speak_stream(pieces, voice="demo_male", realtime=False) as stream:
        chunks = iter(stream)
        next(chunks)
        kill("#Ingress#", restart=False)
        with pytest.raises(StreamCutError, match="lost"):
            list(chunks)
    wait_until(lambda: is_idle(service), 10)
    wait_until(lambda: mailbox not in actors("cosyvoice-texts-"), 30)
    wait_until(lambda: serve.status().applications[service.app_name].status == "RUNNING", 60)
    with client.speak_stream(["Good morning, ", "how are you today."], voice="demo_male") as stream:
        assert len(stream.read()) > 24000
