"""What Python holds in the engine process, asked for through vLLM's own way of calling its worker."""

from __future__ import annotations

import gc
import sys


class Census:
    """Mixed into vLLM's worker by `worker_extension_cls`; on a CPU the worker lives in the engine process."""

    def census(self) -> tuple[int, int]:
        """Objects that the collector follows, and blocks of memory of all objects."""
        return census()


def census() -> tuple[int, int]:
    gc.collect()
    return len(gc.get_objects()), sys.getallocatedblocks()
