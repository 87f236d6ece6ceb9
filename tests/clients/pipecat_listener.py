"""A pipecat pipeline that speaks through the service; run by the interpreter of `tools.client_env`, which has pipecat.

    python pipecat_listener.py BASE_URL VOICE FOLDER TEXT...

Knows nothing of this project. Each TEXT is spoken as a language model would write it, word by word; the sound goes to
FOLDER/heard.pcm, and what else happened (seeds that the service named, errors, frames) to FOLDER/report.json.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from openai import DefaultAsyncHttpxClient
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.workers.runner import WorkerRunner


class Listener(FrameProcessor):
    """The pipeline's end, where a transport would play what comes."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []
        self.rates: set[int] = set()
        self.started = self.stopped = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.heard.append(frame.audio)
            self.rates.add(frame.sample_rate)
        self.started += isinstance(frame, TTSStartedFrame)
        self.stopped += isinstance(frame, TTSStoppedFrame)
        await self.push_frame(frame, direction)


async def listen(base_url: str, voice: str, folder: Path, texts: list[str]) -> None:
    seeds: list[int] = []
    errors: list[str] = []

    async def note(response: Any) -> None:
        if "x-seed" in response.headers:
            seeds.append(int(response.headers["x-seed"]))

    speech = OpenAITTSService(
        api_key="none",
        base_url=base_url,
        http_client=DefaultAsyncHttpxClient(event_hooks={"response": [note]}, timeout=120),
        settings=OpenAITTSService.Settings(voice=voice),
    )
    listener = Listener()
    worker = PipelineWorker(
        Pipeline([speech, listener]), params=PipelineParams(audio_out_sample_rate=24000), idle_timeout_secs=None
    )

    @worker.event_handler("on_pipeline_error")
    async def on_error(_worker: PipelineWorker, frame: ErrorFrame) -> None:
        errors.append(str(frame.error))

    for text in texts:
        await worker.queue_frame(LLMFullResponseStartFrame())
        for word in text.split(" "):
            await worker.queue_frame(LLMTextFrame(f"{word} "))
        await worker.queue_frame(LLMFullResponseEndFrame())
    await worker.queue_frame(EndFrame())
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
    (folder / "heard.pcm").write_bytes(b"".join(listener.heard))
    report = {
        "seeds": seeds,
        "errors": errors,
        "rates": sorted(listener.rates),
        "frames": len(listener.heard),
        "started": listener.started,
        "stopped": listener.stopped,
    }
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:]))
