"""Does this load test report the truth? Runs it against a server whose timing is known, and compares.

Tolerances are for what no client can help: the way over loopback, and a busy machine, by as much as the event loops of
client and server were seen to be late. What is compared with is what the server truly did, not what it was asked to do.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import httpx
import numpy as np

from loadtest import known_server
from loadtest.listener import Arrival, play
from loadtest.record import ErrorKind, Record, Verdict
from loadtest.report import Level, Report
from loadtest.scenario import ClosedLoad, Scenario, Slo, TraceLoad
from loadtest.session import Target, load_test
from loadtest.terminal import progress_bars

_WAY_S = 0.015
# A request and its answer wait for a turn of either loop this often: connect, accept, send, read, answer, hear.
_TURNS = 3
_STREAMS, _ARRIVALS_PER_S = 300, 150


@dataclass(frozen=True, slots=True)
class Check:
    """One figure: what it should be, what was reported, and how far apart the two may be."""

    name: str
    expected: float
    reported: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.expected - self.reported) <= self.tolerance


async def selfcheck(*, quiet: bool = False) -> list[Check]:
    """All checks; takes about 40 s."""
    checks: list[Check] = []
    with _server() as url, tempfile.TemporaryDirectory() as folder:
        bench = _Bench(url, Path(folder), quiet)
        for part in (_latency, _gaps, _omission, _errors, _patience, _many, _busy_client):
            checks += await part(bench)
    return checks


@dataclass(frozen=True, slots=True)
class _Truth:
    """Seconds after each request at which its chunks were truly sent, by request id; answers at once, at most; how
    exactly a client on this machine can know of them; and how late both event loops were."""

    sent: dict[str, list[float]]
    streams_max: int
    tolerance_s: float
    late_s: float


@dataclass(frozen=True, slots=True)
class _Bench:
    """Runs single levels against cases of the known server."""

    url: str
    folder: Path
    quiet: bool

    async def open_loop(self, case: str, offsets: list[float], **changes: object) -> Report:
        file = self.folder / f"{case}.trace"
        file.write_text("\n".join(map(str, offsets)))
        load = TraceLoad(kind="trace", file=file)
        return await self.run(case, load, max(offsets) + 0.5, **changes)

    async def run(self, case: str, load: TraceLoad | ClosedLoad, duration_s: float, **changes: object) -> Report:
        fields = {"mix": {"doors": {"http-pcm": 1}}, "slo": Slo(), **changes}
        scenario = Scenario.model_validate(
            {"name": case, "load": load, "warm_up_s": 0, "duration_s": duration_s, "timeout_s": 20, **fields}
        )
        async with load_test(scenario, Target(f"{self.url}/{case}")) as test:
            return await test.run(progress_bars(duration_s, quiet=self.quiet))

    async def truth(self, case: str, level: Level) -> _Truth:
        """What the server did since this was last asked."""
        async with httpx.AsyncClient(trust_env=False) as web:
            found = (await web.get(f"{self.url}/{case}/sent")).json()
        late_s = level.client.lag_max_s + found["lag_max_s"]
        return _Truth(found["chunks"], found["streams_max"], _WAY_S + _TURNS * late_s, late_s)


async def _latency(bench: _Bench) -> list[Check]:
    """Percentiles of first audio and of the whole, leading silence, the service's account, and its remainder."""
    report = await bench.open_loop("steady", [0.05 * n for n in range(60)])
    level = report.levels[0]
    truth = await bench.truth("steady", level)
    firsts = [truth.sent[record.request_id][0] for record in level.records]
    tolerance = truth.tolerance_s
    summary = level.summary
    assert summary.first_audio and summary.total and summary.leading_silence
    stages = {stage.name: stage.mean_s for stage in summary.stages}
    return [
        Check("requests counted", 60, summary.requests, 0),
        Check("first audio, p50 (s)", median(firsts), summary.first_audio.p50.value, tolerance),
        Check("first audio, p95 (s)", float(np.quantile(firsts, 0.95)), summary.first_audio.p95.value, tolerance),
        Check("total, p50 (s)", median(sent[-1] for sent in truth.sent.values()), summary.total.p50.value, tolerance),
        Check("silence at the start (s)", 0.2, summary.leading_silence.p50.value, 1e-4),
        Check("seconds of audio of each", 1.5, level.records[0].audio_s, 1e-4),
        Check("account: language model (s)", 0.1, stages["lm"], 1e-6),
        Check("account: outside (s)", float(np.mean(firsts)) - 0.14, stages["outside"], tolerance),
    ]


async def _gaps(bench: _Bench) -> list[Check]:
    """Silence of the player, request by request, and what it does to goodput."""
    report = await bench.open_loop("gaps", [0.1 * n for n in range(20)])
    level = report.levels[0]
    truth = await bench.truth("gaps", level)
    tolerance = truth.tolerance_s
    worst = max(level.records, key=lambda one: abs(one.playback.underrun_s - _underrun(truth, one, "gaps")))
    gaps = [len(record.playback.gaps_s) for record in level.records]
    assert level.summary.goodput and level.summary.chunk_gap
    widest = max(after - before for sent in truth.sent.values() for before, after in pairwise(sent))
    return [
        Check("silence amid the audio (s)", _underrun(truth, worst, "gaps"), worst.playback.underrun_s, tolerance),
        Check("gaps of each", 2, median(gaps), 0),
        Check("widest time between chunks (s)", widest, level.summary.chunk_gap.largest, tolerance),
        Check("goodput with gaps", 0, level.summary.goodput.value, 0),
    ]


def _underrun(truth: _Truth, record: Record, case: str) -> float:
    """Silence that the server's own sending times amount to."""
    audio = [audio_s for _, audio_s in known_server.CASES[case].chunks]
    sent = zip(truth.sent[record.request_id], audio, strict=True)
    return play(tuple(Arrival(at_s, audio_s) for at_s, audio_s in sent)).underrun_s


async def _omission(bench: _Bench) -> list[Check]:
    """A service that stands still for 2 s: arrivals go on, and all who came meanwhile wait. One patient user who asks
    again after each answer is hit once; a percentile of such requests hides what the others would have felt."""
    assert known_server.STALL.stall
    begins, lasts = known_server.STALL.stall
    between_s = 0.05
    # The stall's ends fall between arrivals. A late loop may still move one to the other side, and with it the
    # percentile by as much as two arrivals are apart.
    offsets = [0.0, *(between_s * (n + 0.5) for n in range(1, 120))]
    report = await bench.open_loop("stall", offsets)
    level = report.levels[0]
    tolerance = (await bench.truth("stall", level)).tolerance_s
    own_s = known_server.STALL.first_s
    waits = [begins + lasts - offset if begins <= offset < begins + lasts else own_s for offset in offsets]
    summary = level.summary
    closed = (await bench.run("stall-closed", ClosedLoad(kind="closed", users=(1,)), 6.0)).levels[0].summary
    assert summary.first_audio and closed.first_audio
    return [
        Check("stall, open loop: p50 (s)", float(np.quantile(waits, 0.5)), summary.first_audio.p50.value, tolerance),
        Check(
            "stall, open loop: p90 (s)",
            float(np.quantile(waits, 0.9)),
            summary.first_audio.p90.value,
            tolerance + between_s,
        ),
        Check("stall, open loop: mean (s)", float(np.mean(waits)), summary.first_audio.mean, tolerance),
        Check("stall, closed loop: worst (s)", lasts, closed.first_audio.largest, tolerance + own_s),
        # Were this near the open loop's p90, the client would send what it had missed, or count it.
        Check("stall, closed loop: p90 hides it (s)", own_s, closed.first_audio.p90.value, tolerance),
    ]


async def _errors(bench: _Bench) -> list[Check]:
    """Each way to fail is told apart from the others."""
    wanted = {
        "busy": ErrorKind.OVERLOADED,
        "wrong": ErrorKind.REFUSED,
        "broken": ErrorKind.FAILED,
        "cut": ErrorKind.CUT,
        "short": ErrorKind.CUT,
        "empty": ErrorKind.SHORT,
    }
    checks = []
    for case, kind in wanted.items():
        summary = (await bench.open_loop(case, [0.0, 0.05, 0.1])).levels[0].summary
        checks.append(Check(f"{case}: told as {kind.value}", 3, summary.errors.get(kind.value, 0), 0))
        assert summary.goodput
        checks.append(Check(f"{case}: goodput", 0, summary.goodput.value, 0))
    return checks


async def _patience(bench: _Bench) -> list[Check]:
    """A service that never answers, and listeners who leave at a random moment."""
    summary = (await bench.open_loop("never", [0.0, 0.05], timeout_s=1.0)).levels[0].summary
    mix = {"doors": {"http-pcm": 1}, "cancels": 1.0, "cancel_within_s": 0.3}
    report = await bench.open_loop("steady", [0.02 * n for n in range(30)], mix=mix)
    level = report.levels[0]
    truth = await bench.truth("steady", level)
    left = [record for record in level.records if record.left]
    return [
        Check("no answer: told as timeout", 2, summary.errors.get(ErrorKind.TIMEOUT.value, 0), 0),
        Check("listeners who left", 30, len(left), 0),
        Check("of them counted as failed", 0, level.summary.verdicts[Verdict.FAILED.value], 0),
        Check("the last of them after (s)", 0.3, max(r.ended_s for r in left), 0.05 + truth.tolerance_s),
    ]


async def _many(bench: _Bench) -> list[Check]:
    """Hundreds of real-time streams at once on one core of the client."""
    report = await bench.open_loop("many", [n / _ARRIVALS_PER_S for n in range(_STREAMS)])
    level = report.levels[0]
    truth = await bench.truth("many", level)
    delays = [delay for record in level.records for delay in _delays(record, truth.sent[record.request_id])]
    silence = max(abs(record.playback.underrun_s - _underrun(truth, record, "many")) for record in level.records)
    return [
        Check("streams that were complete", _STREAMS, sum(record.complete for record in level.records), 0),
        Check("streams at once", truth.streams_max, level.client.streams_max, 5 + _ARRIVALS_PER_S * truth.tolerance_s),
        Check("way of a chunk, p50 (s)", 0, median(delays), truth.tolerance_s),
        Check("way of a chunk, p99 (s)", 0, float(np.quantile(delays, 0.99)), 2 * truth.tolerance_s),
        Check("silence that the client added (s)", 0, silence, truth.tolerance_s),
        Check("share of a core used", 0, level.client.cpu, 0.9),
    ]


def _delays(record: Record, sent: list[float]) -> list[float]:
    """From the sending of each chunk to the arrival of its end; the network may cut chunks into pieces."""
    ends = np.cumsum([audio_s for _, audio_s in known_server.MANY.chunks])
    arrived = np.cumsum([arrival.audio_s for arrival in record.arrivals])
    # Half a sample of slack for rounding.
    pieces = np.searchsorted(arrived, ends - 0.5 / known_server.SAMPLE_RATE)
    return [record.arrivals[piece].at_s - moment for piece, moment in zip(pieces, sent, strict=True)]


async def _busy_client(bench: _Bench) -> list[Check]:
    """A client that stands still itself says so, and its lateness is in the latencies."""
    async with _standing_still(after_s=0.5, for_s=0.4):
        report = await bench.open_loop("steady", [0.05 * n for n in range(40)])
    level = report.levels[0]
    # The client's own lateness is what is measured here, so only the server's can excuse more of it.
    tolerance = 0.1 + _TURNS * ((await bench.truth("steady", level)).late_s - level.client.lag_max_s)
    return [
        Check("busy client: says it was the bottleneck", 1, len(report.bottlenecks), 0),
        Check("busy client: greatest lag (s)", 0.4, level.client.lag_max_s, tolerance),
        Check("busy client: latest sending (s)", 0.38, max(r.sent_s for r in level.records), tolerance),
    ]


@asynccontextmanager
async def _standing_still(after_s: float, for_s: float) -> AsyncIterator[None]:
    """Blocks the event loop, as work in it would."""
    handle = asyncio.get_running_loop().call_later(after_s, time.sleep, for_s)
    try:
        yield
    finally:
        handle.cancel()


@contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, "-m", "loadtest.known_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        port = json.loads(process.stdout.readline())
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stdin.close()
            process.wait(timeout=10)


def render(checks: list[Check]) -> str:
    """A line per check."""
    lines = []
    for check in checks:
        mark = "ok  " if check.passed else "FAIL"
        bound = f" (within {check.tolerance:.3f})" if check.tolerance else ""
        lines.append(f"{mark} {check.name}: {check.reported:.4g}, in truth {check.expected:.4g}{bound}")
    failed = sum(not check.passed for check in checks)
    lines.append(f"{len(checks) - failed} of {len(checks)} figures are right")
    return "\n".join(lines)
