"""A growing text on the ingress: utterances as soon as there is text, bounded, and nothing left behind. No Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cosyvoice_core.config import LMConfig
from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import VoicePrompt
from cosyvoice_core.streamed import StreamedLimits
from cosyvoice_core.text.frontend import TextFrontEnd
from cosyvoice_core.text.tokenizer import Tokenizer
from cosyvoice_core.utterance import SpeechRequest, Utterance, UtterancePlanner
from deployments.args import PlaybackArgs
from deployments.ingress.playback import Pace, SegmentPlayer
from deployments.ingress.streamed import StreamedUtterances
from deployments.mailbox import Mailbox, Piece, TextSource
from deployments.messages import AudioHop

RATE = 1000
TEXT = "Good morning to you. How are you today? I am well, thank you."


class LocalTexts:
    """A mailbox in this process."""

    def __init__(self) -> None:
        self.mailbox = Mailbox(100, 10_000, 60)
        self.opened = 0
        self.dropping: set[asyncio.Task[None]] = set()

    async def open(self) -> TextSource:
        self.opened += 1
        await self.mailbox.open(str(self.opened))
        return TextSource("here", str(self.opened))

    async def put(self, source: TextSource, pieces: tuple[Piece, ...], end: bool = False) -> None:
        await self.mailbox.put(source.text, pieces, end)

    def drop(self, source: TextSource) -> None:
        self.dropping.add(asyncio.create_task(self.mailbox.drop(source.text)))


class Service:
    """One growing text and what stands for the stages: a tenth of a second of sound for each text id."""

    def __init__(
        self, front_end: TextFrontEnd, pieces: AsyncIterator[str], *, sentence_tokens: int = 1, **limits: int
    ) -> None:
        planner = UtterancePlanner(front_end, LMConfig(), StreamedLimits(sentence_tokens))
        request = SpeechRequest(text="", voice=VoicePrompt(np.zeros(192, np.float32)), seed=1)
        self.texts = LocalTexts()
        self.heard: dict[int, list[int]] = {}
        self.running = 0
        self.news = asyncio.Event()
        self.thread = ThreadPoolExecutor(1)
        self.utterances = StreamedUtterances(
            pieces,
            planner.streamed(request),
            partial(planner.streamed_utterance, request),
            self.texts,
            self.thread,
            limits.get("max_characters", 1000),
        )

    async def start(
        self, utterance: Utterance, _lead_s: float, source: TextSource, text_age_s: Callable[[], float]
    ) -> AsyncGenerator[AudioHop, None]:
        self.running += 1
        ids = self.heard.setdefault(utterance.index, [])
        try:
            position, ended = 0, False
            while not ended:
                found = await self.texts.mailbox.read(source.text, position, 5)
                assert text_age_s() < 5
                position, ended = position + len(found.pieces), found.ended
                new = [id_ for piece in found.pieces for id_ in piece]
                ids += new
                self.news.set()
                yield AudioHop(np.full(len(new) * RATE // 10, utterance.index, np.float32), (), last=ended)
        finally:
            self.running -= 1

    async def play(self) -> list[float]:
        """Which utterance each sample belongs to."""
        async with self.utterances as utterances:
            player = SegmentPlayer(
                utterances.next_utterance,
                partial(utterances.audio, self.start),
                Pace.file(PlaybackArgs()),
                sample_rate=RATE,
                pause_s=lambda _segment: 0,
                ready=lambda: utterances.ready,
            )
            chunks = [chunk async for chunk in player.play()]
        assert chunks[-1].last
        return [float(value) for chunk in chunks for value in chunk.samples]

    async def until_heard(self, index: int) -> None:
        async with asyncio.timeout(5):
            while not self.heard.get(index):
                self.news.clear()
                await self.news.wait()

    async def left(self) -> int:
        await asyncio.gather(*self.texts.dropping)
        return await self.texts.mailbox.count()


@pytest.fixture(scope="module")
def front_end(demo_checkpoint: Path) -> TextFrontEnd:
    return TextFrontEnd(Tokenizer.from_directory(demo_checkpoint / "CosyVoice-BlankEN"))


async def pieces_of(*pieces: str, pause_s: float = 0.0) -> AsyncIterator[str]:
    for piece in pieces:
        await asyncio.sleep(pause_s)
        yield piece


async def test_utterances_are_the_sentences_in_order_however_the_text_comes(front_end: TextFrontEnd) -> None:
    expected = [
        front_end.encode(part) for part in ("Good morning to you.", "How are you today?", "I am well, thank you.")
    ]
    for pieces in (pieces_of(TEXT), pieces_of(*TEXT), pieces_of(TEXT[:30], TEXT[30:], pause_s=0.02)):
        service = Service(front_end, pieces)
        samples = await service.play()
        assert list(service.heard.values()) == expected
        assert samples == [float(index) for index, ids in enumerate(expected) for _ in range(len(ids) * RATE // 10)]
        assert (service.running, await service.left()) == (0, 0)


async def test_sound_comes_while_the_text_is_written(front_end: TextFrontEnd) -> None:
    go_on = asyncio.Event()

    async def pieces() -> AsyncIterator[str]:
        yield "Good morning "
        await go_on.wait()
        yield "to you."

    service = Service(front_end, pieces())
    playing = asyncio.create_task(service.play())
    await service.until_heard(0)
    assert front_end.tokenizer.decode(service.heard[0]) == "Good morning"
    go_on.set()
    await playing
    assert front_end.tokenizer.decode(service.heard[0]) == "Good morning to you."


async def test_text_far_ahead_of_its_sound_waits_with_its_writer(front_end: TextFrontEnd) -> None:
    taken = 0

    async def pieces() -> AsyncIterator[str]:
        nonlocal taken
        for _ in range(40):
            taken += 1
            yield "This is one sentence. "

    service = Service(front_end, pieces())
    async with service.utterances as utterances:
        assert await utterances.next_utterance() is not None
        await asyncio.sleep(0.3)
        assert taken < 10
    assert await service.left() == 0


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        (("...", "?!"), "nothing that can be spoken"),
        ((), "nothing that can be spoken"),
        (("word " * 300,), "at most 1000"),
    ],
)
async def test_wrong_texts_are_refused(front_end: TextFrontEnd, pieces: tuple[str, ...], problem: str) -> None:
    service = Service(front_end, pieces_of(*pieces))
    with pytest.raises(InputError, match=problem):
        await service.play()
    assert await service.left() == 0


async def test_a_text_that_breaks_off_amid_an_utterance_says_why(front_end: TextFrontEnd) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "Good morning to "
        await asyncio.sleep(0.1)
        raise InputError("input", "no text came")

    service = Service(front_end, pieces())
    with pytest.raises(InputError, match="no text came"):
        await service.play()
    assert (service.running, await service.left()) == (0, 0)


async def test_leaving_drops_every_text(front_end: TextFrontEnd) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield TEXT
        await asyncio.Event().wait()

    service = Service(front_end, pieces())
    playing = asyncio.create_task(service.play())
    await service.until_heard(2)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert (service.running, await service.left()) == (0, 0)
