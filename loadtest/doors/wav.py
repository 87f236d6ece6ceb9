"""16-bit samples out of bytes that arrive in any portions, bare or behind a WAV header."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

_UNKNOWN = 0xFFFFFFFF
_LARGEST_HEADER = 4096


class MalformedAudioError(ValueError):
    """The bytes are not mono 16-bit PCM, or no WAV."""


class PcmReader:
    """Bare samples; a sample may be split between portions."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._rest = b""

    def samples(self, data: bytes) -> npt.NDArray[np.int16]:
        data = self._rest + data if self._rest else data
        even = len(data) & ~1
        self._rest = data[even:]
        return np.frombuffer(data, "<i2", count=even // 2)

    @property
    def whole(self) -> bool:
        """Whether all bytes made samples."""
        return not self._rest


class WavReader(PcmReader):
    """A WAV, with or without its true length in the header."""

    def __init__(self) -> None:
        super().__init__(0)
        self.declared_bytes: int | None = None
        """Of the whole WAV, if its header knows."""
        self._head: bytes | None = b""

    def samples(self, data: bytes) -> npt.NDArray[np.int16]:
        """Raises MalformedAudioError for anything but mono 16-bit PCM in a WAV."""
        if self._head is None:
            return super().samples(data)
        self._head += data
        body = self._parse(self._head)
        if body is None:
            if len(self._head) > _LARGEST_HEADER:
                raise MalformedAudioError(f"no samples within {_LARGEST_HEADER} bytes of WAV header")
            return np.zeros(0, np.int16)
        self._head = None
        return super().samples(body)

    @property
    def whole(self) -> bool:
        return self._head is None and super().whole

    def _parse(self, head: bytes) -> bytes | None:
        """What follows the header, once that is complete."""
        if len(head) < 12:
            return None
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            raise MalformedAudioError(f"not a WAV: begins with {head[:12]!r}")
        position = 12
        while position + 8 <= len(head):
            name, size = struct.unpack_from("<4sI", head, position)
            position += 8
            if name == b"data":
                if not self.sample_rate:
                    raise MalformedAudioError("the WAV's samples come before their format")
                self.declared_bytes = None if size >= _UNKNOWN - 1 or size == 0 else position + size
                return head[position:]
            if name == b"fmt ":
                if position + 16 > len(head):
                    return None
                coding, channels, self.sample_rate, _, _, bits = struct.unpack_from("<HHIIHH", head, position)
                if (coding, channels, bits) != (1, 1, 16) or not self.sample_rate:
                    raise MalformedAudioError(
                        f"coding {coding}, {channels} channels, {bits} bits; wanted mono 16-bit PCM"
                    )
            position += size + size % 2
        return None
