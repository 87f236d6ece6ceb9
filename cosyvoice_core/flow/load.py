"""What a flow scheduler is doing and holds, as numbers for whoever watches a replica. Counts nothing itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FlowLoad:
    """State of a scheduler between two steps.

    stepped: streams in the latest step; waiting: streams with tokens or a chunk that were not part of it; open: all
    streams; free_pages, cache_bytes: of the block, what nobody holds and what is held. Since the start: recomputed,
    chunks that computed frames again for want of pages; prefix_hits and prefix_misses, streams whose voice's prompt
    was known or not (prompts too short to share anything count as neither). stream_pages: of the pages that are held,
    those that only streams hold, not what is kept of voices.
    """

    stepped: int
    waiting: int
    open: int
    free_pages: int
    cache_bytes: int
    recomputed: int
    prefix_hits: int
    prefix_misses: int
    stream_pages: int = 0
