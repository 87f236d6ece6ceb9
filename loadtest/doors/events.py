"""16-bit samples out of OpenAI's speech events, which arrive in any portions."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.doors.door import DoorError
from loadtest.doors.wav import MalformedAudioError, PcmReader
from loadtest.record import ErrorKind

_END = b"\n\n"
_DATA = b"data: "


class EventReader:
    """Events whose audio is bare samples."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._samples = PcmReader(sample_rate)
        self._rest = b""
        self._done = False

    def samples(self, data: bytes) -> npt.NDArray[np.int16]:
        """Raises MalformedAudioError for what is no such event, DoorError for one that tells of a failure."""
        *events, self._rest = (self._rest + data).split(_END)
        audio = b"".join(self._audio(_parsed(event)) for event in events)
        return self._samples.samples(audio)

    @property
    def whole(self) -> bool:
        """Whether the last event has come, and all audio made samples."""
        return self._done and not self._rest and self._samples.whole

    def _audio(self, event: dict[str, Any]) -> bytes:
        kind = event.get("type")
        if kind == "speech.audio.delta":
            return base64.b64decode(event["audio"])
        if kind == "speech.audio.done":
            self._done = True
            return b""
        if kind == "error":
            raise DoorError(ErrorKind.CUT, str(event.get("error")))
        raise MalformedAudioError(f"unknown event {kind!r}")


def _parsed(event: bytes) -> dict[str, Any]:
    # Fields other than the data (ids, comments) are none of ours.
    lines = [line.removeprefix(_DATA) for line in event.split(b"\n") if line.startswith(_DATA)]
    try:
        parsed = json.loads(b"\n".join(lines))
    except ValueError:
        raise MalformedAudioError(f"no event: {event[:60]!r}") from None
    if not isinstance(parsed, dict):
        raise MalformedAudioError(f"no event: {event[:60]!r}")
    return parsed
