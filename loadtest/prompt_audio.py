"""The recording that voices are made from, and variants of it that a service cannot know yet.

A cache that goes by content has to compute a new voice for each variant, while it sounds the same: variants differ in
the lowest bits of a few samples.
"""

from __future__ import annotations

import secrets
import struct
from pathlib import Path

from loadtest.errors import ScenarioError

_NUMBER_BITS = 64


class PromptAudio:
    """A 16-bit PCM WAV and its transcript."""

    def __init__(self, wav: bytes, transcript: str, run: int | None = None) -> None:
        """run: what makes the variants of this run different from those of any other; drawn at random if not given.

        Raises ScenarioError when the audio is not such a WAV.
        """
        self._wav = wav
        self._data = _data_offset(wav)
        self._run = secrets.randbits(32) if run is None else run
        self.transcript = transcript

    @classmethod
    def from_file(cls, file: Path) -> PromptAudio:
        """Read `FILE.wav` and the transcript in `FILE.txt`, if there is one. Raises ScenarioError."""
        try:
            wav = file.read_bytes()
        except OSError as error:
            raise ScenarioError(f"{file}: cannot read the prompt audio ({error.strerror})") from None
        beside = file.with_suffix(".txt")
        return cls(wav, beside.read_text(encoding="utf-8").strip() if beside.is_file() else "")

    def variant(self, number: int) -> bytes:
        """The recording itself for 0; for others a copy that only this run and number have."""
        if number == 0:
            return self._wav
        copy = bytearray(self._wav)
        mark = (self._run << 32) | (number & 0xFFFFFFFF)
        for bit in range(_NUMBER_BITS):
            at = self._data + 2 * bit
            copy[at] = (copy[at] & 0xFE) | (mark >> bit & 1)
        return bytes(copy)


def _data_offset(wav: bytes) -> int:
    wanted = "the prompt audio must be a WAV of 16-bit PCM with at least 64 samples"
    if len(wav) < 12 or wav[:4] != b"RIFF" or wav[8:12] != b"WAVE":
        raise ScenarioError(wanted)
    position, bits = 12, 0
    while position + 8 <= len(wav):
        name, size = struct.unpack_from("<4sI", wav, position)
        position += 8
        if name == b"fmt " and size >= 16 and position + 16 <= len(wav):
            bits = struct.unpack_from("<H", wav, position + 14)[0]
        elif name == b"data":
            if bits != 16 or len(wav) - position < 2 * _NUMBER_BITS:
                raise ScenarioError(wanted)
            return position
        position += size + size % 2
    raise ScenarioError(wanted)
