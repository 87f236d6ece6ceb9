"""A voice bot on pipecat whose voice is this service: pipecat's own OpenAI TTS service, pointed here. No cloud, no key.

    make serve                                                     # in one terminal
    python -m venv bot && bot/bin/pip install "pipecat-ai[openai]>=1.14,<2"     # pipecat's pins are not ours
    bot/bin/python examples/voice_bot.py "When do you open?" "Where are you?"

The bot's answers go into voice_bot.wav. Its ears and its mind are left out here: questions are typed, and a `Clerk`
looks answers up. In a bot that talks, a transport (`pipecat.transports`) and a speech recogniser come before it, a
language model (`OpenAILLMService`, of any server that speaks its API) takes the clerk's place, and the transport's
output that of the recorder. pipecat knows only the names of OpenAI's voices; `voice_aliases` in the service's config
says which of ours they are.
"""

from __future__ import annotations

import argparse
import asyncio
import wave
from pathlib import Path

from pipecat.frames.frames import (
    EndFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

RATE = 24000
ANSWERS = {
    "open": "We open at nine in the morning.",
    "where": "You find us in the old city.",
    "price": "A ticket is seven pounds.",
}
NO_ANSWER = "I am sorry, I do not know that."


class Clerk(FrameProcessor):
    """Answers what was heard, word by word as a language model does."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, TranscriptionFrame):
            await self.push_frame(frame, direction)
            return
        answers = (answer for word, answer in ANSWERS.items() if word in frame.text.lower())
        await self.push_frame(LLMFullResponseStartFrame())
        for word in next(answers, NO_ANSWER).split():
            await self.push_frame(LLMTextFrame(f"{word} "))
        await self.push_frame(LLMFullResponseEndFrame())


class WavRecorder(FrameProcessor):
    """Stands where a transport plays: writes what the bot says."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = wave.open(str(path), "wb")  # noqa: SIM115 - open as long as the pipeline runs
        self._file.setnchannels(1)
        self._file.setsampwidth(2)
        self._file.setframerate(RATE)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self._file.writeframes(frame.audio)
        elif isinstance(frame, EndFrame):
            self._file.close()
        await self.push_frame(frame, direction)


async def talk(url: str, voice: str, questions: list[str], out: Path) -> None:
    """Ask the bot `questions`, one after another, and keep what it says."""
    voice_of_bot = OpenAITTSService(
        api_key="none", base_url=f"{url}/v1", settings=OpenAITTSService.Settings(voice=voice)
    )
    bot = PipelineWorker(
        Pipeline([Clerk(), voice_of_bot, WavRecorder(out)]), params=PipelineParams(audio_out_sample_rate=RATE)
    )
    for question in questions:
        await bot.queue_frame(TranscriptionFrame(question, "visitor", time_now_iso8601()))
    await bot.queue_frame(EndFrame())
    runner = WorkerRunner()
    await runner.add_workers(bot)
    await runner.run()


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask a bot and hear it answer.")
    parser.add_argument("questions", nargs="*", default=["When do you open?"])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--voice", default="alloy", help="as OpenAI calls it; voice_aliases in the Serve config")
    parser.add_argument("--out", type=Path, default=Path("voice_bot.wav"))
    options = parser.parse_args()
    asyncio.run(talk(options.url, options.voice, options.questions, options.out))
    print(options.out)


if __name__ == "__main__":
    main()
