"""Gives memory that was freed back to the system, so that a replica is as large as what it holds, not as its history.

The C library keeps freed memory for later requests. Tensors of ever-changing sizes seldom fit the holes that earlier
ones left, so a heap that holds no more than before grows for hours. `malloc_trim` returns the whole pages in those
holes. Knows neither stages nor tensors. Does nothing where the C library has no such call (macOS, musl).
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable


def trim() -> None:
    """Return the free pages of all heaps of this process; takes some milliseconds."""
    call = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if call is not None:
        call(0)


class HeapTrim:
    """Trims the heap `delay_s` after something was freed, once for all that was freed meanwhile."""

    def __init__(self, delay_s: float = 1.0, give_back: Callable[[], None] = trim) -> None:
        self._delay_s = delay_s
        self._give_back = give_back
        self._waiting = False

    def freed(self) -> None:
        """Note that memory was freed; called in the event loop."""
        if not self._waiting:
            self._waiting = True
            asyncio.get_running_loop().call_later(self._delay_s, self._trim)

    def _trim(self) -> None:
        self._waiting = False
        # In a thread of its own, so that neither the event loop nor a computation stands still for it.
        asyncio.get_running_loop().run_in_executor(None, self._give_back)
