"""How many samples an MP4 file claims to hold, read from its boxes before a demuxer believes the claim.

A demuxer reserves some 24 bytes of index per claimed sample, and four bytes are enough to claim billions. Knows
only where the counts stand: nothing is decoded here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_CONTAINERS = frozenset(
    {
        b"moov",
        b"trak",
        b"mdia",
        b"minf",
        b"stbl",
        b"edts",
        b"udta",
        b"dinf",
        b"tref",
        b"wave",
        b"mvex",
        b"moof",
        b"traf",
    }
)
_DEEPEST = 12


def claims_more_samples_than(content: bytes, limit: int) -> bool:
    """Whether a sample table or the fragments of `content` promise more than `limit` samples.

    Also true for a compressed table of contents, which could unpack to anything.
    """
    in_fragments = 0
    for kind, start, end in _boxes(content, 0, len(content), _DEEPEST):
        if kind == b"cmov":
            return True
        if kind in (b"stsz", b"stz2"):
            claimed = _number(content, start + 8, end)
        elif kind == b"trun":
            in_fragments += _number(content, start + 4, end)
            claimed = in_fragments
        else:
            continue
        if claimed > limit:
            return True
    return False


def _boxes(content: bytes, start: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte of the payload, end) of every box, containers before what they hold."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        payload = start + 8
        if size == 1 and start + 16 <= end:
            size = struct.unpack_from(">Q", content, payload)[0]
            payload += 8
        stop = end if size == 0 else min(end, start + size)
        if stop < payload:
            return
        yield kind, payload, stop
        if kind in _CONTAINERS and depth:
            yield from _boxes(content, payload, stop, depth - 1)
        start = stop


def _number(content: bytes, position: int, end: int) -> int:
    return int.from_bytes(content[position : min(position + 4, end)], "big")
