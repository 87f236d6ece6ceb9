"""livekit's OpenAI TTS plugin, driven as an agent drives it: whole texts, and sentence by sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import openai
import pytest
from livekit.agents import APIConnectOptions, APIStatusError, tokenize, tts
from livekit.plugins.openai import TTS

from deployments.local import LocalService
from tests.cluster.heard import Sound, assert_same_sound, pcm, wav_of

pytestmark = pytest.mark.clients

TEXT = "Good morning, how are you today."
SECOND = "The train leaves at nine in the morning."
VOICE = "demo_male"
_FRAME, _MOST_SILENCE = 240, 5
ONCE = APIConnectOptions(max_retry=0, timeout=60)


class Seeds:
    """Seeds of the answers, which the service names; the plugin cannot ask for one."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    async def note(self, response: Any) -> None:
        if "x-seed" in response.headers:
            self.heard.append(int(response.headers["x-seed"]))


@pytest.fixture
def seeds() -> Seeds:
    return Seeds()


@pytest.fixture
async def sdk(service: LocalService, seeds: Seeds) -> AsyncIterator[openai.AsyncOpenAI]:
    web = openai.DefaultAsyncHttpxClient(event_hooks={"response": [seeds.note]}, timeout=120)
    async with openai.AsyncOpenAI(
        api_key="none", base_url=f"{service.url}/v1", max_retries=0, http_client=web
    ) as client:
        yield client


async def played(stream: Any) -> Sound:
    """All frames of a stream to its end."""
    frames = []
    async with stream:
        async for event in stream:
            assert (event.frame.sample_rate, event.frame.num_channels) == (24000, 1)
            frames.append(bytes(event.frame.data))
    return pcm(b"".join(frames))


def assert_played(heard: Sound, *texts: Sound) -> None:
    """All of each text, one after another; the plugin puts frames of 10 ms of silence behind a text."""
    for text in texts:
        for frames in range(_MOST_SILENCE):
            start = frames * _FRAME
            same = heard[start : start + len(text)]
            if len(same) == len(text) and not heard[:start].any() and np.abs(same - text).max() < 2e-3:
                heard = heard[start + len(text) :]
                break
        else:
            pytest.fail(f"{len(text)} samples are not in what was heard")
    assert len(heard) < _MOST_SILENCE * _FRAME
    assert not heard.any()


@pytest.mark.parametrize("response_format", ["pcm", "mp3", "wav", "flac", "opus", "aac"])
@pytest.mark.parametrize("model", ["gpt-4o-mini-tts", "tts-1"])
async def test_a_text_is_played_to_its_end(
    service: LocalService, sdk: openai.AsyncOpenAI, seeds: Seeds, model: str, response_format: str
) -> None:
    """It asks for events with the one model, for plain audio with the other."""
    engine = TTS(model=model, voice=VOICE, client=sdk, response_format=response_format)
    heard = await played(engine.synthesize(TEXT, conn_options=ONCE))
    (seed,) = seeds.heard
    expected = wav_of(service.url, TEXT, VOICE, seed)
    if response_format == "pcm":
        assert_played(heard, expected)
    else:
        # Decoded by the framework, which may cut or pad at either end.
        assert_same_sound(heard, expected, "mp3")


async def test_an_agents_text_is_spoken_sentence_by_sentence(
    service: LocalService, sdk: openai.AsyncOpenAI, seeds: Seeds
) -> None:
    """As an agent session does with the words of a language model."""
    engine = TTS(voice=VOICE, client=sdk, response_format="pcm")
    adapter = tts.StreamAdapter(tts=engine, sentence_tokenizer=tokenize.basic.SentenceTokenizer(min_sentence_len=5))
    stream = adapter.stream(conn_options=ONCE)
    for word in f"{TEXT} {SECOND}".split(" "):
        stream.push_text(f"{word} ")
    stream.end_input()
    heard = await played(stream)
    assert len(seeds.heard) == 2
    texts = zip((TEXT, SECOND), seeds.heard, strict=True)
    assert_played(heard, *(wav_of(service.url, text, VOICE, seed) for text, seed in texts))


async def test_options_reach_the_service(service: LocalService, sdk: openai.AsyncOpenAI, seeds: Seeds) -> None:
    engine = TTS(voice="alloy", client=sdk, response_format="pcm", speed=1.5, instructions="Speak slowly.")
    heard = await played(engine.synthesize(TEXT, conn_options=ONCE))
    (seed,) = seeds.heard
    assert_played(heard, wav_of(service.url, TEXT, "alloy", seed, speed=1.5, instructions="Speak slowly."))


async def test_errors_are_its_own(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(APIStatusError) as caught:
        await played(TTS(voice="nobody", client=sdk).synthesize(TEXT, conn_options=ONCE))
    assert caught.value.status_code == 400
