"""Memory of the service's processes while one long text streams through all of them. Linux only.

Starts the service of a Serve config, asks for one text as fast as it can be made, and reads resident memory each time
so much audio has arrived.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deployments.local import LocalService, start, stop

_BYTES_PER_S = 48_000
_CHARACTERS_PER_S = 40
"""More than anyone says in a second, so that the text outlasts the audio that is asked for."""
_WHO = ("the teacher", "my brother", "an old friend", "our neighbour", "a small child", "the captain", "her sister")
_DID = (
    "walked to",
    "looked at",
    "talked about",
    "waited for",
    "came back from",
    "thought of",
    "ran past",
    "read about",
)
_WHAT = ("the house", "the river", "a green garden", "the old station", "the market", "the open window", "a long road")
_WHEN = ("", " in the morning", " after dinner", " before the rain", " at the end of the day", " and went home again")
_NAMES = ("ProxyActor", "ServeController", "EngineCore", "Mailbox", "raylet", "gcs_server")


@dataclass(frozen=True, slots=True)
class Reading:
    """Resident memory in MB by process, when `audio_s` of audio had arrived after `time_s`."""

    audio_s: float
    time_s: float
    resident_mb: dict[str, float]


@dataclass(slots=True)
class MemoryReport:
    readings: list[Reading] = field(default_factory=list)

    def render(self, spans: int = 6) -> str:
        """Mean and maximum in equal spans of the audio, and growth from the first third on."""
        names = sorted({name for reading in self.readings for name in reading.resident_mb})
        size = max(1, -(-len(self.readings) // spans))
        parts = [self.readings[first : first + size] for first in range(0, len(self.readings), size)]
        head = " | ".join(f"{part[0].audio_s:.0f}..{part[-1].audio_s:.0f} s" for part in parts)
        lines = [f"| resident MB (mean, most) | {head} | MB per 1000 s |", "|---" * (len(parts) + 2) + "|"]
        for name in names:
            cells = []
            for part in parts:
                values = [reading.resident_mb[name] for reading in part if name in reading.resident_mb]
                cells.append(f"{statistics.mean(values):.0f}, {max(values):.0f}" if values else "")
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {self._slope(name):.1f} |")
        last = self.readings[-1]
        return "\n".join([*lines, f"{last.audio_s:.0f} s of audio in {last.time_s:.0f} s"])

    def write(self, path: Path) -> None:
        rows = [{"audio_s": r.audio_s, "time_s": r.time_s, "resident_mb": r.resident_mb} for r in self.readings]
        path.write_text(json.dumps(rows, indent=1) + "\n")

    def _slope(self, name: str) -> float:
        settled = self.readings[len(self.readings) // 3 :]
        points = [(r.audio_s, r.resident_mb[name]) for r in settled if name in r.resident_mb]
        if len({x for x, _ in points}) < 2:
            return 0.0
        return 1000 * statistics.linear_regression(*zip(*points, strict=True)).slope


def run(config: dict[str, Any], seconds: float, every_s: float, port: int) -> MemoryReport:
    """Stream `seconds` of audio through the service of `config`, reading memory every `every_s` of it."""
    report = MemoryReport()
    service = start(config, port=port)
    try:
        began = time.monotonic()
        for audio_s in _audio(service, seconds):
            if audio_s >= len(report.readings) * every_s:
                report.readings.append(Reading(round(audio_s, 1), round(time.monotonic() - began, 1), resident_mb()))
    finally:
        stop()
    return report


def resident_mb() -> dict[str, float]:
    """Resident memory of all processes below this one; the service's own by their names, others together."""
    pages = os.sysconf("SC_PAGESIZE") / 2**20
    found: dict[str, float] = {}
    for process in _below(os.getpid()):
        try:
            command = Path(f"/proc/{process}/cmdline").read_text()
            size = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * pages
        except OSError:
            continue
        name = _name(command)
        found[name] = round(found.get(name, 0.0) + size, 1)
    return found


def _audio(service: LocalService, seconds: float) -> Iterator[float]:
    """Seconds of audio that have arrived, after each piece of it."""
    body = {"input": _text(int(seconds * _CHARACTERS_PER_S)), "realtime": False, "seed": 1, "response_format": "pcm"}
    url, arrived = f"{service.url}/v1/audio", 0
    body["voice"] = httpx.get(f"{url}/voices", timeout=60).json()["voices"][0]["name"]
    with httpx.stream("POST", f"{url}/speech", json=body, timeout=300) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"the service answered {answer.status_code}: {answer.read().decode()}")
        for piece in answer.iter_raw():
            arrived += len(piece)
            yield arrived / _BYTES_PER_S
            if arrived >= seconds * _BYTES_PER_S:
                return


def _text(characters: int) -> str:
    chance, sentences, length = random.Random(1), [], 0
    while length < characters:
        sentence = " ".join(chance.choice(words) for words in (_WHO, _DID, _WHAT)) + chance.choice(_WHEN) + "."
        sentences.append(sentence[0].upper() + sentence[1:])
        length += len(sentence) + 1
    return " ".join(sentences)


def _below(process: int) -> Iterator[int]:
    try:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield child
        yield from _below(child)


def _name(command: str) -> str:
    if "ServeReplica:" in command:
        # `application:deployment`, and while a call lasts its method.
        title = command.split("ServeReplica:")[1].split("\0")[0].split()[0]
        return title.split(":")[-1].split(".")[0]
    return next((name for name in _NAMES if name in command), "other")
