"""Freed memory goes back to the system soon after calls end, and not for every one of them."""

from __future__ import annotations

import asyncio
import ctypes
import subprocess
import sys

import pytest

from deployments.heap import HeapTrim
from deployments.stage import OpenCalls

HOLES = """
import os
import deployments.heap as heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

blocks = [bytearray(b"x") * 100_000 for _ in range(2000)]
full = resident()
# One block in ten stays, so that the heap cannot simply shrink from its end.
kept = blocks[::10]
del blocks
before = resident()
heap.trim()
print(full, before, resident(), sum(map(len, kept)))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim")
def test_holes_in_the_heap_are_given_back() -> None:
    """In a process of its own, whose heap nobody else has used."""
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True, timeout=60)
    full, before, after, kept = map(int, done.stdout.split())
    assert before > 0.8 * full
    assert after < before - (200_000_000 - kept) * 0.9


async def test_calls_that_end_together_cost_one_trim() -> None:
    trims: list[None] = []
    trimmed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def give_back() -> None:
        trims.append(None)
        loop.call_soon_threadsafe(trimmed.set)

    heap = HeapTrim(0.05, give_back)
    for _ in range(2):
        trimmed.clear()
        for _ in range(20):
            heap.freed()
        await trimmed.wait()
    assert len(trims) == 2


async def test_a_call_of_a_replica_trims_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    monkeypatch.setattr(HeapTrim, "freed", lambda _self: noted.append("freed"))
    calls = OpenCalls()
    with calls, calls:
        assert (calls.count, noted) == (2, [])
    assert (calls.count, noted) == (0, ["freed", "freed"])
