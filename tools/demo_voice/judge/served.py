"""A talker that is a listener of a running service: HTTP for a text that is there, the WebSocket for one that grows.

Knows the routes of docs/live.md and of the README, not what answers behind them.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import yaml
from websockets.sync.client import connect

from loadtest.own_service import own_service
from tools.demo_voice.judge.speaking import Said, Way

_ROUTE = "/v1/audio/speech"
_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Recording:
    """A voice as a caller brings it: a file's bytes in base64, and what is said in it."""

    audio: str
    transcript: str


class ServedTalker:
    """Speaks sentences through the service at `url`.

    most: the greatest number of speech tokens a text can become, which tells whether speech ended by itself.
    """

    def __init__(self, url: str, most: Callable[[str], int]) -> None:
        self._url, self._most = url, most
        self._client = httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False)

    def voice(self, recording: Path, transcript: str) -> Recording:
        """A voice from a recording."""
        return Recording(base64.b64encode(recording.read_bytes()).decode(), transcript)

    def say(self, text: str, voice: Recording, way: Way, seed: int) -> Said:
        """One text. Raises httpx.HTTPStatusError or RuntimeError when the service refuses or fails."""
        began = time.perf_counter()
        spoken = (
            self._bi_streamed(text, voice, seed) if way is Way.BI_STREAMED else self._answered(text, voice, way, seed)
        )
        pieces: list[bytes] = []
        first = 0.0
        for piece in spoken:
            first = first or time.perf_counter() - began
            pieces.append(piece)
        samples = np.frombuffer(b"".join(pieces), "<i2").astype(np.float32) / np.float32(32768)
        return Said(samples, len(samples) // 960 < self._most(text), time.perf_counter() - began, first)

    def _answered(self, text: str, voice: Recording, way: Way, seed: int) -> Iterator[bytes]:
        body = {"input": text, "stream": way is Way.STREAMED, **_manner(voice, seed)}
        with self._client.stream("POST", _ROUTE, json=body) as response:
            if response.is_error:
                response.read()
            response.raise_for_status()
            yield from response.iter_bytes()

    def _bi_streamed(self, text: str, voice: Recording, seed: int) -> Iterator[bytes]:
        with connect(f"{self._url.replace('http', 'ws', 1)}{_ROUTE}/stream", max_size=None, compression=None) as socket:
            socket.send(json.dumps({"type": "start", **_manner(voice, seed)}))
            for word in text.split():
                socket.send(json.dumps({"type": "text", "text": f"{word} "}))
            socket.send(json.dumps({"type": "end"}))
            while (event := json.loads(socket.recv(_TIMEOUT_S)))["type"] != "done":
                if event["type"] == "error":
                    raise RuntimeError(f"{text!r}: {event['error']}")
                if event["type"] == "audio":
                    piece = socket.recv(_TIMEOUT_S)
                    assert isinstance(piece, bytes)
                    yield piece


def _manner(voice: Recording, seed: int) -> Mapping[str, Any]:
    # Nobody plays what is judged: it may come as fast as it is made.
    return {
        "prompt_audio": voice.audio,
        "prompt_text": voice.transcript,
        "response_format": "pcm",
        "seed": seed,
        "realtime": False,
    }


@contextmanager
def service_of(checkpoint: Path, config: Path) -> Iterator[str]:
    """URL of a service by a Serve config, but for the model: this checkpoint. It ends with the context."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    for application in settings["applications"]:
        application["args"]["model"] = str(checkpoint.resolve())
    with TemporaryDirectory() as folder:
        settings["applications"][0]["args"]["voices"] = {"url": folder}
        path = Path(folder) / "serve_config.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        with own_service(path) as url:
            yield url
