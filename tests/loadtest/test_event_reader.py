"""Samples out of server-sent events, however they are cut on the way."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from cosyvoice_core.audio.encode import to_pcm16
from loadtest.doors.door import DoorError
from loadtest.doors.events import EventReader
from loadtest.doors.wav import MalformedAudioError

SOUND = np.linspace(-0.5, 0.5, 1000, dtype=np.float32)


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(data: bytes) -> bytes:
    return event(type="speech.audio.delta", audio=base64.b64encode(data).decode())


DONE = event(type="speech.audio.done", usage={})


@pytest.mark.parametrize("portion", [1, 7, 10_000])
def test_audio_comes_out_whatever_the_portions(portion: int) -> None:
    data = to_pcm16(SOUND)
    # A sample may be split between two events.
    stream = delta(data[:801]) + b"id: 5\n" + delta(data[801:]) + DONE
    reader = EventReader(24000)
    parts = [reader.samples(stream[at : at + portion]) for at in range(0, len(stream), portion)]
    np.testing.assert_array_equal(np.concatenate(parts), np.frombuffer(data, "<i2"))
    assert reader.whole


def test_a_stream_without_its_last_event_is_not_whole() -> None:
    reader = EventReader(24000)
    reader.samples(delta(to_pcm16(SOUND)))
    assert not reader.whole


def test_a_failure_that_is_told_is_a_failure() -> None:
    with pytest.raises(DoorError, match="lost"):
        EventReader(24000).samples(event(type="error", error={"message": "a stage was lost"}))


@pytest.mark.parametrize("stream", [b"RIFF\n\n", b"data: [1]\n\n", event(type="other")])
def test_what_is_no_speech_event_is_malformed(stream: bytes) -> None:
    with pytest.raises(MalformedAudioError):
        EventReader(24000).samples(stream)
