"""What tests of the page need: a service without stages that can break, on a port of its own, and a browser's page."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn

from deployments.ingress.deployment import make_api
from deployments.ingress.keys import KeyRing
from deployments.messages import SpeakCall, SpeechChunk
from tests.deployments.silent_stages import SilentStages

CHUNK = 6000
CHUNKS = 4


class BreakingStages(SilentStages):
    """As those, but the ramp is cut where `cut_after` says, as when a replica is lost, and a rest can be asked for."""

    cut_after: int | None = None
    slow = False

    async def speak(
        self, call: SpeakCall, request_id: str, *, streamed: bool = True
    ) -> AsyncGenerator[SpeechChunk, None]:
        self.request_of(call, streamed=streamed)
        self.calls.append(call)
        if self.fail_before:
            raise self.fail_before
        self.open += 1
        try:
            ramp = np.linspace(-0.5, 0.5, CHUNK * CHUNKS, dtype=np.float32)
            done = call.resume.samples
            while done < len(ramp):
                if self.cut_after is not None and done >= self.cut_after:
                    self.cut_after = None
                    raise ConnectionError("cut for the test")
                yield SpeechChunk(ramp[done : done + CHUNK], 0)
                done += CHUNK
                await asyncio.sleep(5 if self.slow else 0.02)
            yield SpeechChunk(np.zeros(0, np.float32), 0, last=True)
        finally:
            self.open -= 1


@contextmanager
def served(stages: SilentStages, keys: KeyRing | None = None) -> Iterator[str]:
    """The doors on a free port of this machine, in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_api(stages, keys), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


@contextmanager
def watched(opened: Any, **options: Any) -> Iterator[Any]:
    """A new page without memory of others, whose scripts must not fail."""
    context = opened.new_context(**options)
    failures: list[str] = []
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda line: failures.append(line.text) if "Content Security" in line.text else None)
    try:
        yield page
    finally:
        context.close()
    assert failures == []


def heard(page: Any) -> int:
    return int(page.get_attribute("#heard", "value") or 0)


def finished(page: Any) -> None:
    """Wait until all was played."""
    page.wait_for_selector("#status:has-text('Spoke ')")
