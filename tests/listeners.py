"""Listeners of many kinds at a running service, each of which knows what it should hear.

The calls are few and repeat, so that what each of them sounds like without any failure can be heard beforehand.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from cosyvoice_core.inputs import FloatArray
from deployments.client import CosyVoiceClient, SpeechStream

PROMPT = Path(__file__).parents[1] / "checkpoints" / "demo" / "prompts" / "demo_deep.wav"
TOLERANCE = 1e-3
TEXTS = (
    "Good morning, how are you today.",
    "The train leaves at nine in the morning and arrives in the city late in the afternoon.",
    "Please close the window. It is cold outside. We will have tea now.",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One of the few calls: a text with how it is spoken. `written`: it is spoken while it is written."""

    text: str
    written: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    def open(self, client: CosyVoiceClient) -> SpeechStream:
        options: dict[str, Any] = {"voice": "demo_male", **dict(self.options)}
        if options.get("prompt_audio"):
            del options["voice"]
        if self.written:
            return client.speak_stream(self.text.split(" "), **options)
        return client.speak(self.text, **options)


def calls() -> list[Call]:
    """Saved and new voices, complete and growing texts, one and several segments."""
    prompt = PROMPT.read_bytes()
    return [
        Call(TEXTS[0], options=(("seed", 1), ("voice", "demo_female"))),
        Call(TEXTS[1], options=(("seed", 2),)),
        Call(TEXTS[2], options=(("seed", 3),)),
        Call(TEXTS[1], written=True, options=(("seed", 4),)),
        Call(TEXTS[0], options=(("seed", 5), ("prompt_audio", prompt))),
        Call(TEXTS[1], options=(("seed", 6), ("speed", 1.2), ("realtime", False))),
    ]


@dataclass
class Heard:
    """What one listener heard; times by `time.monotonic`. silence_s: the longest that a player which began with the
    first chunk ran dry. problem: why it is broken, if it is."""

    call: Call
    began: float
    ended: float = 0.0
    first_s: float = 0.0
    silence_s: float = 0.0
    samples: list[FloatArray] = field(default_factory=list)
    problem: str = ""

    @property
    def audio(self) -> FloatArray:
        return np.concatenate(self.samples) if self.samples else np.zeros(0, np.float32)

    def compare(self, expected: FloatArray) -> None:
        """Note what differs from the same call unbroken."""
        actual = self.audio
        if self.problem:
            return
        if actual.shape != expected.shape:
            self.problem = f"{actual.size} samples instead of {expected.size}"
        elif (worst := float(np.abs(actual - expected).max())) >= TOLERANCE:
            self.problem = f"a sample differs by {worst:.4f}"


async def listen(
    client: CosyVoiceClient,
    call: Call,
    *,
    begun: asyncio.Event | None = None,
    rate: int = 24000,
    timeout_s: float = 300,
) -> Heard:
    """Hear one call to its end, whatever happens; `begun` is set with the first audio, or the end."""
    heard = Heard(call, time.monotonic())
    plays_until: float | None = None
    try:
        async with asyncio.timeout(timeout_s), call.open(client) as stream:
            async for chunk in stream:
                now = time.monotonic()
                if begun is not None:
                    begun.set()
                if plays_until is None:
                    plays_until, heard.first_s = now, now - heard.began
                heard.silence_s = max(heard.silence_s, now - plays_until)
                plays_until = max(plays_until, now) + len(chunk) / rate
                heard.samples.append(chunk)
    except Exception as error:  # noqa: BLE001 - whatever it is, a listener was cut off
        heard.problem = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
    if begun is not None:
        begun.set()
    heard.ended = time.monotonic()
    return heard


async def references(client: CosyVoiceClient, of: list[Call]) -> list[FloatArray]:
    """What each call sounds like when nothing fails. Raises AssertionError when one does not even then."""
    found = []
    for call in of:
        heard = await listen(client, call)
        assert not heard.problem, heard.problem
        found.append(heard.audio)
    return found


def choose(of: list[Call], seed: int, number: int) -> int:
    """Which call listener `number` makes; all come equally often."""
    order = list(range(len(of)))
    Random(f"{seed}-{number // len(of)}").shuffle(order)
    return order[number % len(of)]
