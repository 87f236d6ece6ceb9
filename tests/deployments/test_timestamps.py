"""Events that say when segments and hops of an answer are heard."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deployments.args import AppArgs, PlaybackArgs
from deployments.ingress.options import Timestamps
from tests.deployments.speaking_stages import RATE, sound_of
from tests.deployments.test_formats import events
from tests.deployments.test_scripts import Studio

# Two segments, of 3 s and 2 s by the stand-in.
TEXT = "This sentence is about thirty characters. " * 7 + "A short one."


@pytest.fixture(scope="module")
def shared_studio() -> Studio:
    return Studio(playback=PlaybackArgs(pause_s=0.5))


@pytest.fixture
async def studio(shared_studio: Studio) -> AsyncIterator[Studio]:
    shared_studio.vocoder.tasks.clear()
    yield shared_studio


async def told(studio: Studio, timestamps: Timestamps, **body: Any) -> list[dict[str, Any]]:
    fields = {"input": TEXT, "voice": "demo_male", "response_format": "pcm", "stream_format": "sse", "seed": 1}
    answer = await studio.client.post("/v1/audio/speech", json={**fields, "timestamps": timestamps, **body})
    assert answer.status_code == 200, answer.text
    return events(answer.text)


def of(kind: str, happened: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in happened if event["type"] == kind]


async def test_nobody_who_does_not_ask_gets_other_events_than_openais(studio: Studio) -> None:
    assert {event["type"] for event in await told(studio, "none")} == {"speech.audio.delta", "speech.audio.done"}


@pytest.mark.parametrize("rate", [24000, 48000])
@pytest.mark.parametrize("speed", [1.0, 1.6])
async def test_segments_have_their_text_and_times(studio: Studio, speed: float, rate: int) -> None:
    happened = await told(studio, "segment", speed=speed, sample_rate=rate)
    spoken = [task.utterance for task in studio.vocoder.tasks]
    assert len(spoken) > 1
    done = of("speech.segment.done", happened)
    assert [event["text"] for event in done] == [utterance.text for utterance in spoken]
    begin = 0.0
    for event, utterance in zip(done, spoken, strict=True):
        end = begin + len(sound_of(utterance)) / RATE
        assert (event["start"], event["end"]) == (pytest.approx(begin, abs=1e-3), pytest.approx(end, abs=1e-3))
        begin = end + AppArgs().playback.pause_s + 0.5
    assert of("speech.hop.done", happened) == []


async def test_a_segment_is_announced_before_its_sound_and_told_after_it(studio: Studio) -> None:
    happened = await told(studio, "segment")
    position = 0.0
    for event in happened:
        if event["type"] == "speech.audio.delta":
            position += len(base64.b64decode(event["audio"])) / 2 / RATE
        elif event["type"] == "speech.segment.started":
            assert position <= event["start"] + 1e-3
        elif event["type"] == "speech.segment.done":
            assert position >= event["end"] - 1e-3


@pytest.mark.parametrize("speed", [1.0, 1.6])
async def test_hops_fill_their_segment(studio: Studio, speed: float) -> None:
    happened = await told(studio, "hop", speed=speed)
    for segment in of("speech.segment.done", happened):
        hops = [event for event in of("speech.hop.done", happened) if event["segment"] == segment["segment"]]
        assert hops[0]["start"] == segment["start"]
        assert hops[-1]["end"] == segment["end"]
        assert [hop["first_token"] for hop in hops] == [25 * number for number in range(len(hops))]
        assert [hop["start"] for hop in hops[1:]] == [hop["end"] for hop in hops[:-1]]
        utterance = next(t.utterance for t in studio.vocoder.tasks if t.utterance.index == segment["segment"])
        tokens = round(len(sound_of(utterance)) * speed / 960)
        assert sum(hop["tokens"] for hop in hops) == tokens


async def test_the_rest_of_an_answer_has_the_times_of_the_whole(studio: Studio) -> None:
    whole = of("speech.segment.done", await told(studio, "segment"))
    rest = of("speech.segment.done", await told(studio, "segment", resume_from_sample=RATE))
    assert rest == whole
