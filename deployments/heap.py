"""Gives memory that was freed back to the system, so that a replica is as large as what it holds, not as its history.

The C library keeps freed memory for later requests. Tensors of ever-changing sizes seldom fit the holes that earlier
ones left, so a heap that holds no more than before grows for hours. `malloc_trim` returns the whole pages in those
holes. Knows neither stages nor tensors. Does nothing where the C library has no such call (macOS, musl).
"""

from __future__ import annotations

import asyncio
import ctypes

_DELAY_S = 1.0


class HeapTrim:
    """Trims this process's heap soon after something large was freed, at most once a `delay_s`."""

    def __init__(self, delay_s: float = _DELAY_S) -> None:
        self._delay_s = delay_s
        self._waiting = False

    def freed(self) -> None:
        """Note that memory was freed; call it in the event loop."""
        if not self._waiting:
            self._waiting = True
            asyncio.get_running_loop().call_later(self._delay_s, self._trim)

    def _trim(self) -> None:
        self._waiting = False
        # Some milliseconds, in which neither the event loop nor a computation of this process need stand still.
        asyncio.get_running_loop().run_in_executor(None, trim)


def trim() -> None:
    """Return free pages of all heaps to the system."""
    call = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if call is not None:
        call(0)
