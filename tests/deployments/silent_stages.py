"""The doors over a service without stages, and what tests ask of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import httpx
import numpy as np

from deployments.args import AppArgs
from deployments.ingress.script import checked_lines
from deployments.ingress.service import SpeechService
from deployments.messages import FirstAudio, ScriptCall, SpeakCall, SpeechChunk, StageInfo

RATE = 24000


class SilentStages(SpeechService):
    """The real service with its checks, text front end and voices, but no stages: sound is a ramp.

    What is tested here is the door; the stages are tested where they run, in tests/cluster.
    """

    def __init__(self, args: AppArgs) -> None:
        super().__init__(args, vocoder=None, stages={})  # type: ignore[arg-type]
        self.calls: list[SpeakCall] = []
        self.fail_before: Exception | None = None
        self.fail_after: Exception | None = None
        self.open = 0
        self.without_replica: tuple[str, ...] = ()

    async def speak(
        self, call: SpeakCall, request_id: str, *, streamed: bool = True
    ) -> AsyncGenerator[SpeechChunk, None]:
        await self.look_for_voices(call)
        self.request_of(call, streamed=streamed)
        self.calls.append(call)
        async with aclosing(self._ramps(request_id)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def read(
        self, script: ScriptCall, request_id: str, *, streamed: bool = True
    ) -> AsyncGenerator[SpeechChunk, None]:
        checked_lines(script, self.args.limits, partial(self.request_of, streamed=True), streamed=streamed)
        async with aclosing(self._ramps(request_id)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _ramps(self, request_id: str) -> AsyncGenerator[SpeechChunk, None]:
        self.open += 1
        try:
            if self.fail_before:
                raise self.fail_before
            ramp = np.linspace(-0.5, 0.5, RATE // 10, dtype=np.float32)
            for number in range(3):
                told = FirstAudio(request_id, (("lm", 0.1), ("flow", 0.0255))) if number == 0 else None
                yield SpeechChunk(ramp, 0, first_audio=told)
                if self.fail_after:
                    raise self.fail_after
            yield SpeechChunk(np.zeros(0, np.float32), 0, last=True)
        finally:
            self.open -= 1

    async def stages_without_replica(self) -> tuple[str, ...]:
        return self.without_replica

    async def stage_infos(self) -> dict[str, StageInfo | None]:
        return {"SpeechLM": StageInfo("SpeechLM", "cpu", "float32", "torch", 1, 0), "Vocoder": None}


async def speak(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/audio/speech", json={"input": "Hello.", "voice": "demo_male", **body})


def refusal(response: httpx.Response, status: int, param: str | None) -> str:
    """The message of an error in OpenAI's shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    message: str = error["message"]
    return message
