"""A translator that speaks: text comes in pieces in one language, speech goes out in another while more text comes.

A Ray Serve application of its own, which holds a handle of the speech service and adds nothing between the two: the
pieces need not end at words, and the speech begins when the first words are certain.

    make serve                                                     # in one terminal
    .venv/bin/python -m examples.translator "Guten Morgen. Der Zug fährt um neun."     # in another

It deploys itself beside the service, speaks the German text through its WebSocket into translated.wav, and is taken
away again. `--stay` leaves it running at ws://127.0.0.1:8000/translate/ for clients of any kind.

The translation is a phrase book of a few words, so that the example needs no other model; a model of your own is
anything else that takes pieces and gives pieces.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import wave
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from deployments.client import DEFAULT_APP, CosyVoiceClient

APP = "translator"
ROUTE = "/translate"
RATE = 24000
GERMAN = {
    "guten morgen": "good morning",
    "der zug": "the train",
    "fährt": "leaves",
    "kommt": "comes",
    "um neun": "at nine",
    "heute": "today",
    "es ist kalt": "it is cold",
}
_WORD = re.compile(r"\w+|[^\w\s]")


class Translation(Protocol):
    """What the deployment needs of a translator."""

    def translated(self, pieces: AsyncIterator[str]) -> AsyncIterator[str]:
        """The same in another language, while it comes."""


class PhraseBook:
    """Translates phrases that it knows, the longest first, and leaves other words as they are."""

    def __init__(self, phrases: Mapping[str, str]) -> None:
        self._phrases = {tuple(phrase.split()): words for phrase, words in phrases.items()}
        self._longest = max(map(len, self._phrases))

    async def translated(self, pieces: AsyncIterator[str]) -> AsyncIterator[str]:
        waiting: list[str] = []
        async for word in _words(pieces):
            waiting.append(word)
            # The longest phrase could still begin with any of the last ones.
            while len(waiting) > self._longest:
                yield self._take(waiting)
        while waiting:
            yield self._take(waiting)

    def _take(self, waiting: list[str]) -> str:
        """Translate what `waiting` begins with, and take it away."""
        for count in range(min(self._longest, len(waiting)), 0, -1):
            words = self._phrases.get(tuple(word.lower() for word in waiting[:count]))
            if words is not None or count == 1:
                first = waiting[0] if words is None else words
                del waiting[:count]
                return f" {first}" if first[0].isalnum() else first
        raise AssertionError("there is always one word to take")


async def _words(pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    """Whole words and punctuation marks of a text that is cut anywhere."""
    rest = ""
    async for piece in pieces:
        rest += piece
        found = _WORD.findall(rest)
        # The last word may go on in the next piece.
        whole = found if rest[-1:].isspace() else found[:-1]
        rest = "" if rest[-1:].isspace() else "".join(found[-1:])
        for word in whole:
            yield word
    for word in _WORD.findall(rest):
        yield word


@serve.ingress()
class SpokenTranslator:
    """WebSocket at `/`: text messages in, the last one empty; binary messages out, 16-bit samples at 24 kHz."""

    def __init__(self, speech: DeploymentHandle, translation: Translation, voice: str) -> None:
        self._client = CosyVoiceClient(handle=speech)
        self._translation = translation
        self._voice = voice

    def __serve_build_asgi_app__(self) -> Starlette:
        return Starlette(routes=[WebSocketRoute("/", self._interpret)])

    async def _interpret(self, socket: WebSocket) -> None:
        await socket.accept()
        words = self._translation.translated(_received(socket))
        # Leaving the block, also because the client left, stops all stages.
        async with self._client.speak_stream(words, voice=self._voice) as stream:
            async for samples in stream:
                await socket.send_bytes(_pcm16(samples))
        await socket.close()


async def _received(socket: WebSocket) -> AsyncIterator[str]:
    while piece := await socket.receive_text():
        yield piece


def _pcm16(samples: np.ndarray) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def application(app_name: str = DEFAULT_APP, voice: str = "demo_female") -> serve.Application:
    """The translator beside the speech service that runs under `app_name` in the same cluster."""
    deployment = serve.deployment(SpokenTranslator, ray_actor_options={"num_cpus": 0.1})
    bound: serve.Application = deployment.bind(serve.get_app_handle(app_name), PhraseBook(GERMAN), voice)
    return bound


async def interpret(url: str, pieces: Iterable[str]) -> bytes:
    """Send `pieces` to the translator at `url`; returns what it says."""
    async with connect(url, max_size=None) as socket:
        for piece in pieces:
            await socket.send(piece)
        await socket.send("")
        return b"".join([message async for message in socket if isinstance(message, bytes)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Speak a German text in English.")
    parser.add_argument("text", nargs="?", default="Guten Morgen. Der Zug fährt um neun.")
    parser.add_argument("--url", default=f"ws://127.0.0.1:8000{ROUTE}/")
    parser.add_argument("--voice", default="demo_female")
    parser.add_argument("--out", type=Path, default=Path("translated.wav"))
    parser.add_argument("--stay", action="store_true", help="leave it deployed")
    options = parser.parse_args()
    CosyVoiceClient()  # joins the cluster of the service on this machine
    serve.run(application(voice=options.voice), name=APP, route_prefix=ROUTE)
    try:
        # Three letters at a time: no piece needs to be a word.
        text: str = options.text
        sound = asyncio.run(interpret(options.url, [text[at : at + 3] for at in range(0, len(text), 3)]))
    finally:
        if not options.stay:
            serve.delete(APP)
    with wave.open(str(options.out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(sound)
    print(f"{options.out}: {len(sound) / 2 / RATE:.1f} s")


if __name__ == "__main__":
    main()
