"""A stand-in for the service whose timing is known: what it says of a load test is the load test's own error.

It is a test double because nothing else can be: a real service has no known latency. It speaks just enough HTTP/1.1 of
the speech door, on loopback, in a process of its own so that its work is not the client's, and notes the moments at
which it truly sent things: on a busy machine a timer fires late, and the truth is what was sent. How late its own loop
ran it says too. The first part of the path chooses one of the cases below.

`python -m loadtest.known_server` prints its port and serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from loadtest.pulse import Pulse

SAMPLE_RATE = 24000
_BYTES_PER_S = 2 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Case:
    """How requests of one path are answered.

    first_s: from the request to the first chunk. chunks: (pause before it, seconds of audio) of each chunk.
    stall: (begins after the case's first request, lasts): nothing at all is answered meanwhile. status: of an answer
    without audio. ending: `whole`; `cut` breaks the connection within the chunked body; `short` declares more bytes
    than it sends. silence_s: silence at the start of the audio. timing: the answer's Server-Timing.
    """

    first_s: float = 0.0
    chunks: tuple[tuple[float, float], ...] = ((0.0, 0.5),)
    stall: tuple[float, float] | None = None
    status: int = 200
    ending: str = "whole"
    silence_s: float = 0.0
    timing: str = ""


STEADY = Case(
    first_s=0.15, chunks=((0.0, 0.5), (0.1, 0.5), (0.1, 0.5)), silence_s=0.2, timing="lm;dur=100, flow;dur=40"
)
GAPS = Case(first_s=0.05, chunks=((0.0, 0.2), (0.5, 0.1), (0.05, 0.3), (0.4, 0.2)))
STALL = Case(first_s=0.02, chunks=((0.0, 0.1),), stall=(2.0, 2.0))
MANY = Case(first_s=0.1, chunks=((0.0, 0.4), *(((0.2, 0.2),) * 14)))
CASES: dict[str, Case] = {
    "steady": STEADY,
    "gaps": GAPS,
    "stall": STALL,
    "stall-closed": STALL,
    "many": MANY,
    "busy": Case(status=429),
    "wrong": Case(status=400),
    "broken": Case(status=500),
    "cut": Case(ending="cut"),
    "short": Case(ending="short"),
    "empty": Case(chunks=()),
    "never": Case(),
}


@dataclass(slots=True)
class Sent:
    """Moments of one answer, in seconds since its request had come: when each chunk was sent."""

    chunks: list[float] = field(default_factory=list)


class KnownServer:
    """Answers by the cases; `sent` keeps what was truly done, by case and request id."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self.sent: dict[str, dict[str, Sent]] = {name: {} for name in CASES}
        self._first_request: dict[str, float] = {}
        self._streams = self._streams_max = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the client has gone."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer_one(reader, writer):
                await writer.drain()
        writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        await reader.readexactly(int(headers.get("content-length", "0")))
        _, name, *rest = path.split("/")
        if rest and rest[-1] == "speech" and method == "POST":
            if name == "never":
                await reader.read()
                return False
            return await self._counted(name, headers.get("x-request-id", ""), writer)
        if rest == ["sent"]:
            sent = {id_: sent.chunks for id_, sent in self.sent[name].items()}
            lag_max_s = self._pulse.worst_since_last_asked()
            _send_json(writer, {"lag_max_s": lag_max_s, "streams_max": self._streams_max, "chunks": sent})
        elif rest == ["health"]:
            _send_json(writer, {"status": "ok", "model": "known timing"})
        else:
            _send_json(writer, {"voices": [{"name": "known"}]})
        return True

    async def _counted(self, name: str, request_id: str, writer: asyncio.StreamWriter) -> bool:
        self._streams += 1
        self._streams_max = max(self._streams_max, self._streams)
        try:
            return await self._speak(name, request_id, writer)
        finally:
            self._streams -= 1

    async def _speak(self, name: str, request_id: str, writer: asyncio.StreamWriter) -> bool:
        case = CASES[name]
        loop = asyncio.get_running_loop()
        came = loop.time()
        sent = self.sent[name].setdefault(request_id, Sent())
        if case.status != 200:
            _send_json(writer, {"error": {"message": "as asked"}}, case.status)
            return True
        stall_end = self._stall_end(name, came)
        await asyncio.sleep(max(came + case.first_s, stall_end) - loop.time())
        length = f"content-length: {_BYTES_PER_S}" if case.ending == "short" else "transfer-encoding: chunked"
        writer.write(
            f"HTTP/1.1 200 OK\r\n{length}\r\nx-sample-rate: {SAMPLE_RATE}\r\nx-request-id: {request_id}\r\n"
            f"server-timing: {case.timing}\r\n\r\n".encode()
        )
        audio = b"\0\0" * round(case.silence_s * SAMPLE_RATE)
        due = loop.time()
        for pause_s, audio_s in case.chunks:
            due += pause_s
            await asyncio.sleep(due - loop.time())
            size = round(audio_s * SAMPLE_RATE) * 2
            data = (audio + b"\0\x40" * (size // 2))[:size]
            audio = audio[size:]
            sent.chunks.append(loop.time() - came)
            writer.write(data if case.ending == "short" else b"%x\r\n%b\r\n" % (len(data), data))
            # A timer that fired late moves what follows, as a slow service would.
            due = loop.time()
        if case.ending == "whole":
            writer.write(b"0\r\n\r\n")
        return case.ending == "whole"

    def _stall_end(self, name: str, now: float) -> float:
        """When a request that came now may be answered."""
        stall = CASES[name].stall
        if stall is None:
            return now
        begins = self._first_request.setdefault(name, now) + stall[0]
        return begins + stall[1] if begins <= now < begins + stall[1] else now


def _send_json(writer: asyncio.StreamWriter, content: Any, status: int = 200) -> None:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status} As known\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def serve() -> None:
    """Until standard input ends, which it does with the process that started this one."""
    with Pulse() as pulse:
        server = await asyncio.start_server(KnownServer(pulse).answer, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
