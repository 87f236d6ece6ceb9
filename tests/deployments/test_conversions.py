"""The conversion door without Ray: bodies, what is refused, pieces of long recordings, encoders that are lost."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from deployments.args import PlaybackArgs
from deployments.ingress.callers import Caller
from deployments.ingress.source import ReadAhead, source_tokens
from deployments.messages import Recording, SpeakCall, StreamCutError
from deployments.quotas.ledger import QuotaError
from tests.deployments.silent_stages import refusal
from tests.deployments.speaking_stages import RATE, HearingEncoder, sound_of
from tests.deployments.test_formats import events
from tests.deployments.test_scripts import Studio, pcm

SOURCE = bytes(range(125))
ROUTE = "/v1/audio/conversions"


@pytest.fixture(scope="module")
def shared_studio() -> Studio:
    return Studio()


@pytest.fixture
async def studio(shared_studio: Studio) -> AsyncIterator[Studio]:
    shared_studio.vocoder.tasks.clear()
    shared_studio.encoder.encoded.clear()
    yield shared_studio


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize("name", ["source_audio", "audio"])
async def test_a_recording_is_spoken_piece_by_piece(studio: Studio, as_file: bool, name: str) -> None:
    options: dict[str, Any] = {"voice": "demo_female", "response_format": "pcm", "seed": 1}
    if as_file:
        answer = await studio.client.post(ROUTE, data=options, files={name: ("a.wav", SOURCE, "audio/wav")})
    else:
        answer = await studio.client.post(ROUTE, json={**options, name: base64.b64encode(SOURCE).decode()})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-seed"] == "1"
    assert "server-timing" in answer.headers
    tasks = studio.vocoder.tasks
    tokens = [task.utterance.inputs.source_tokens for task in tasks]
    assert np.concatenate(tokens).tolist() == list(SOURCE)  # type: ignore[arg-type]
    assert [task.utterance.index for task in tasks] == [0, 1, 2]
    expected = np.concatenate([sound_of(task.utterance) for task in tasks])
    assert np.abs(pcm(answer.content) - expected).max() < 1e-3


async def test_the_voice_may_be_a_recording_too(studio: Studio) -> None:
    files = [("source_audio", ("a.wav", SOURCE, "audio/wav")), ("ref_audio", ("b.wav", b"prompt", "audio/wav"))]
    answer = await studio.client.post(ROUTE, data={"speed": "2"}, files=files)
    assert answer.status_code == 200, answer.text
    assert studio.encoder.encoded == [b"prompt"]
    assert {task.utterance.speed for task in studio.vocoder.tasks} == {2.0}


async def test_the_rest_of_a_conversion_that_was_cut(studio: Studio) -> None:
    body = {
        "source_audio": base64.b64encode(SOURCE).decode(),
        "voice": "demo_male",
        "response_format": "pcm",
        "seed": 1,
    }
    whole = (await studio.client.post(ROUTE, json=body)).content
    rest = (await studio.client.post(ROUTE, json={**body, "resume_from_sample": 3000})).content
    assert rest == whole[6000:]


async def test_events_tell_usage_and_segments(studio: Studio) -> None:
    body = {"source_audio": base64.b64encode(SOURCE).decode(), "voice": "demo_male", "speed": 2.0}
    answer = await studio.client.post(ROUTE, json={**body, "stream_format": "sse", "timestamps": "segment"})
    told = events(answer.text)
    assert told[-1]["usage"] == {"input_tokens": 124, "output_tokens": 62, "total_tokens": 186}
    ends = [event["end"] for event in told if event["type"] == "speech.segment.done"]
    assert ends == [1.0, 2.0, 2.5]


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({}, "source_audio", "required"),
        ({"source_audio": "!"}, "source_audio", "base64"),
        ({"source_audio": "bm9pc2U="}, "source_audio", "WAV"),
        ({"source_audio": "", "voice": "nobody"}, "voice", "demo_female"),
        ({"source_audio": "", "voice": None}, "voice", "demo_female"),
        ({"source_audio": "", "input": "Hello"}, "input", "not permitted"),
        ({"source_audio": "", "speed": 3}, "speed", "2"),
        ({"source_audio": "", "instructions": "sadly"}, "instructions", "not permitted"),
    ],
)
async def test_wrong_fields_are_named(studio: Studio, body: dict[str, Any], param: str, says: str) -> None:
    answer = await studio.client.post(ROUTE, json={"voice": "demo_male", **body})
    assert says in refusal(answer, 400, param)
    assert studio.vocoder.tasks == []


async def test_seconds_of_the_source_count_for_quotas(studio: Studio) -> None:
    """5 s count as 75 characters, which are known when they have come: they leave a debt."""
    call = SpeakCall(Recording(SOURCE), voice="demo_male").by(Caller("acme", characters_per_minute=50))
    assert [chunk.segment async for chunk in studio.service.speak(call, "id")][-1] == 2
    with pytest.raises(QuotaError):
        await anext(studio.service.speak(call, "id"))


async def test_what_a_lost_encoder_gave_is_not_computed_again() -> None:
    encoder = HearingEncoder()
    encoder.break_after = [1, 0, 1]
    playback = PlaybackArgs(max_replays=2, replay_pause_s=0)
    tokens = [ids async for ids in source_tokens(Recording(SOURCE), encoder, playback)]  # type: ignore[arg-type]
    assert np.concatenate(tokens).tolist() == list(SOURCE)
    assert encoder.sources == [0, 1, 1, 2]


async def test_encoders_that_are_lost_again_and_again_fail_the_call() -> None:
    encoder = HearingEncoder()
    encoder.break_after = [1, 0, 0, 0]
    playback = PlaybackArgs(max_replays=2, replay_pause_s=0)
    tokens = source_tokens(Recording(SOURCE), encoder, playback)  # type: ignore[arg-type]
    async with ReadAhead(tokens) as pieces:
        assert (await pieces.next()) is not None
        with pytest.raises(StreamCutError):
            await pieces.next()


def test_the_stand_in_speaks_at_the_models_rate() -> None:
    assert Studio().service.sample_rate == RATE
