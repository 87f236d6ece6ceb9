"""`python -m tests.soak`: callers of every kind for a long time, many of them rude, and what the service keeps of them.

The one-machine service in processes of its own; callers read, leave amid the sound, leave a text unfinished, ask for
what there is not, bring voices. Nobody may get another answer than he should, memory must be flat, and nothing may be
left in any replica afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import httpx
import numpy as np
import psutil

from deployments.client import CosyVoiceClient
from deployments.local import LocalService, start, stop
from tests.cluster_state import application, engines_of, left_in
from tests.fake_cluster import free_port, origin, service_config

PROMPTS = sorted((Path(__file__).parents[1] / "checkpoints" / "demo" / "prompts").glob("*.wav"))
VOICES = ("demo_male", "demo_female", "demo_bright", "demo_deep")
PHRASES = (
    "the train leaves at nine in the morning and we are late today",
    "please open that window it is warm",
    "my friend will come on monday with 3 books he bought in 1998 for $20",
    "good evening everyone",
)
WORDS = [word for phrase in PHRASES for word in phrase.split()]
WRONG: tuple[dict[str, object], ...] = (
    {"input": "", "voice": "demo_male"},
    {"input": "Hello.", "voice": "nobody"},
    {"input": "Hello.", "voice": "demo_male", "speed": 99},
    {"input": "...", "voice": "demo_male"},
    {"input": "Hello.", "voice": "demo_male", "colour": "red"},
    {"input": "x" * 300_000, "voice": "demo_male"},
)
_LOOK_S = 2.0
_REFUSED = (429, 503)


@dataclass
class Report:
    """calls by kind; refused: by admission, of those; failures: answers that should have been others; growth: of each
    process over the second half, MB by the slope of a line, and percent of its median size. orphans, leaks: calls open,
    and what is held for calls, after all have ended, by deployment."""

    minutes: float
    seed: int
    calls: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    rss_mb: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    growth_mb: dict[str, float] = field(default_factory=dict)
    growth_percent: dict[str, float] = field(default_factory=dict)
    orphans: dict[str, int] = field(default_factory=dict)
    leaks: dict[str, int] = field(default_factory=dict)
    replaced: int = 0

    def sound(self, growth_percent: float) -> bool:
        flat = all(percent < growth_percent for percent in self.growth_percent.values())
        return bool(self.calls) and flat and not (self.failures or self.orphans or self.leaks or self.replaced)


class Callers:
    """What one kind of caller does; each method is one visit and raises AssertionError for a wrong answer."""

    def __init__(self, service: LocalService, seed: int, of: list[str] | None, report: Report) -> None:
        self._url = f"{service.url}/v1/audio/speech"
        self._client = CosyVoiceClient(service.app_name)
        self._chance = Random(seed)
        self._report = report
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "listens": self._listens,
            "leaves": self._leaves,
            "leaves by handle": self._leaves_by_handle,
            "writes": self._writes,
            "stops writing": self._stops_writing,
            "asks for what is not": self._is_wrong,
            "brings a voice": self._brings_a_voice,
        }
        self._of = of or list(self.kinds)

    async def visit(self) -> None:
        kind = self._chance.choice(self._of)
        self._report.calls[kind] = self._report.calls.get(kind, 0) + 1
        try:
            await self.kinds[kind]()
        except Exception as error:  # noqa: BLE001 - whatever it is, a caller did not get what he should
            self._report.failures.append(f"{kind}: {type(error).__name__}: {error}"[:300])
            print(self._report.failures[-1], file=sys.stderr, flush=True)

    def _text(self) -> str:
        words = self._chance.choices(WORDS, k=self._chance.randint(2, 24))
        stops = [word + ("." if self._chance.random() < 0.15 else "") for word in words]
        return " ".join(stops) + "."

    def _body(self) -> dict[str, object]:
        return {
            "input": self._text(),
            "voice": self._chance.choice(VOICES),
            "response_format": "pcm",
            "seed": self._chance.randrange(10**6),
            "realtime": self._chance.random() < 0.5,
            "speed": self._chance.choice((1.0, 1.0, 0.8, 1.3)),
        }

    @contextlib.asynccontextmanager
    async def _answer(self, **request: object) -> AsyncIterator[httpx.Response | None]:
        """A streamed answer; None where admission refused."""
        async with (
            httpx.AsyncClient(timeout=180) as web,
            web.stream("POST", self._url, **request) as answer,  # type: ignore[arg-type]
        ):
            if answer.status_code in _REFUSED:
                self._report.refused += 1
                yield None
            else:
                assert answer.status_code == 200, await answer.aread()
                yield answer

    async def _heard(self, **request: object) -> None:
        async with self._answer(**request) as answer:
            if answer is not None:
                sound = sum([len(data) async for data in answer.aiter_raw()])
                assert sound > 2 * 2400, f"{sound} bytes"

    async def _listens(self) -> None:
        await self._heard(json=self._body())

    async def _leaves(self) -> None:
        stay, heard = self._chance.randint(0, 4), 0
        async with self._answer(json=self._body() | {"input": " ".join(self._text() for _ in range(5))}) as answer:
            if answer is not None:
                async with contextlib.aclosing(answer.aiter_raw()) as sound:
                    async for _ in sound:
                        heard += 1
                        if heard > stay:
                            break

    async def _leaves_by_handle(self) -> None:
        stay, heard = self._chance.randint(0, 3), 0
        async with self._client.speak(self._text() * 3, voice="demo_deep", realtime=False) as stream:
            async for _ in stream:
                heard += 1
                if heard > stay:
                    break

    async def _pieces(self, end_s: float = 0.0) -> AsyncIterator[str]:
        for word in self._text().split(" "):
            yield f"{word} "
            await asyncio.sleep(self._chance.random() * 0.05)
        await asyncio.sleep(end_s)

    async def _writes(self) -> None:
        async with self._client.speak_stream(self._pieces(), voice="demo_male") as stream:
            assert sum([len(chunk) async for chunk in stream]) > 2400

    async def _stops_writing(self) -> None:
        """The writer says nothing more, and the listener leaves at some time."""
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(self._chance.uniform(0.2, 4)),
                self._client.speak_stream(self._pieces(60), voice="demo_male") as stream,
            ):
                async for _ in stream:
                    pass

    async def _is_wrong(self) -> None:
        async with httpx.AsyncClient(timeout=60) as web:
            answer = await web.post(self._url, json=self._chance.choice(WRONG))
        self._report.refused += answer.status_code in _REFUSED
        assert 400 <= answer.status_code < 500 or answer.status_code in _REFUSED, answer.text

    async def _brings_a_voice(self) -> None:
        prompt = self._chance.choice(PROMPTS)
        fields = {name: str(value) for name, value in self._body().items() if name not in ("voice", "realtime")}
        if self._chance.random() < 0.5:
            fields["prompt_text"] = prompt.with_suffix(".txt").read_text()
        await self._heard(data=fields, files={"prompt_audio": (prompt.name, prompt.read_bytes(), "audio/wav")})


class Sizes:
    """Resident memory of all replicas and engines, by deployment."""

    def __init__(self, app: str) -> None:
        replicas = application(app).replicas
        self.processes = {replica.process for replica in replicas}
        self._watched = {replica.deployment: psutil.Process(replica.process) for replica in replicas}
        for replica in replicas:
            for engine in engines_of(replica.process):
                self._watched[f"{replica.deployment} engine"] = psutil.Process(engine)

    def look(self) -> dict[str, float]:
        """MB; without those that have ended."""
        found = {}
        for name, process in self._watched.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[name] = process.memory_info().rss / 2**20
        return found


async def soak(service: LocalService, options: argparse.Namespace) -> Report:
    """Callers for so many minutes, then a look at what is left."""
    report = Report(options.minutes, options.seed)
    callers, sizes = Callers(service, options.seed, options.kinds, report), Sizes(service.app_name)
    began, until = time.monotonic(), time.monotonic() + 60 * options.minutes

    async def come_again() -> None:
        while time.monotonic() < until:
            await callers.visit()

    async def watch() -> None:
        while time.monotonic() < until:
            for name, size in sizes.look().items():
                report.rss_mb.setdefault(name, []).append((round(time.monotonic() - began, 1), round(size, 1)))
            await asyncio.sleep(_LOOK_S)

    async with asyncio.TaskGroup() as everything:
        everything.create_task(watch())
        for _ in range(options.together):
            everything.create_task(come_again())
    note_growth(report)
    left = await left_in(service.app_name, 30)
    report.orphans, report.leaks = left.running, left.held
    report.replaced = len(sizes.processes - {replica.process for replica in application(service.app_name).replicas})
    return report


def note_growth(report: Report) -> None:
    """Of each process, by a line through the sizes of the second half."""
    for name, looks in report.rss_mb.items():
        second = np.array(looks[len(looks) // 2 :])
        if len(second) < 3:
            continue
        slope = float(np.polyfit(second[:, 0], second[:, 1], 1)[0])
        growth = slope * float(second[-1, 0] - second[0, 0])
        report.growth_mb[name] = round(growth, 1)
        report.growth_percent[name] = round(100 * growth / float(np.median(second[:, 1])), 2)


def run(options: argparse.Namespace) -> Report:
    folder = tempfile.mkdtemp(prefix="cv", dir="/tmp")
    config = service_config({}, {"lm": {"engine": options.engine}})
    try:
        service = start(config, port=free_port(), ray_options={"num_cpus": 4, "_temp_dir": folder})
        return asyncio.run(soak(service, options))
    finally:
        stop()
        shutil.rmtree(folder, ignore_errors=True)


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 unless all answers were right, memory was flat, nothing is left and no replica was replaced."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--together", type=int, default=4, help="callers at once")
    parser.add_argument("--seed", type=int, default=0, help="of who comes when and says what")
    parser.add_argument("--kinds", nargs="*", help="of callers, such as: leaves, 'stops writing'; all if left out")
    parser.add_argument("--engine", choices=("auto", "torch", "vllm"), default="auto", help="of the language model")
    parser.add_argument("--growth-percent", type=float, default=5, help="of any process over the second half, at most")
    parser.add_argument("--json", type=Path, help="write the report here")
    options = parser.parse_args(argv)
    report = run(options)
    print(f"{sum(report.calls.values())} calls, {report.refused} refused, {len(report.failures)} wrong: {report.calls}")
    print(f"{report.orphans} orphans, {report.leaks} leaks, {report.replaced} replicas replaced")
    print("growth over the second half, MB: " + "  ".join(f"{name} {mb:+.1f}" for name, mb in report.growth_mb.items()))
    sound = report.sound(options.growth_percent)
    if options.json:
        record = origin("soak") | asdict(report) | {"sound": sound}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
