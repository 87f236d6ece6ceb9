"""espeak-ng through its library: samples of a sentence with the exact place of every phone and word in them.

The command line tool would give the samples alone. The library is not thread-safe: one
thread per process speaks. Knows no training.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.demo_voice.data.voices import Voice
from tools.setup_espeak import LIBRARY, PACKAGES

_INSTALL = f"install it with `make espeak`, or: apt-get install {' '.join(PACKAGES)}"
_SYNCHRONOUS, _PHONE_EVENTS, _DO_NOT_EXIT, _BUFFER_MS = 2, 1, 0x8000, 500
_WORD, _PHONE = 1, 7
_UTF8 = 1
_RATE, _PITCH = 1, 3


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class EspeakError(RuntimeError):
    """espeak-ng is not there, or refused something; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that begins at a sample: a phone by its mnemonic, or a word by its characters in the text."""

    sample: int
    phone: str = ""
    first_letter: int = 0
    letters: int = 0


@dataclass(frozen=True, slots=True)
class Spoken:
    """samples (N,) int16 at `rate` Hz; phones and words in order of time."""

    samples: npt.NDArray[np.int16]
    rate: int
    phones: tuple[Mark, ...]
    words: tuple[Mark, ...]


class Espeak:
    """The synthesiser."""

    def __init__(self) -> None:
        """Raises EspeakError when the library or its data is missing."""
        try:
            self._library: Any = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise EspeakError(f"{LIBRARY} cannot be loaded ({error}); {_INSTALL}") from error
        self.rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, None, _PHONE_EVENTS | _DO_NOT_EXIT))
        if self.rate <= 0:
            raise EspeakError(f"espeak-ng did not start; {_INSTALL}")
        self._library.espeak_Info.restype = ctypes.c_char_p
        place = ctypes.c_char_p()
        self._library.espeak_Info(ctypes.byref(place))
        self._data = Path((place.value or b"").decode())
        self._pieces: list[npt.NDArray[np.int16]] = []
        self._phones: list[Mark] = []
        self._words: list[Mark] = []
        self._callback = _Callback(self._take)

    def say(self, text: str, voice: Voice, *, pitch: int | None = None, words_per_minute: int = 150) -> Spoken:
        """`text` in a voice at a pitch (the voice's own if None). Raises EspeakError for an unknown voice.

        Wobbling voices go on wobbling from one sentence to the next, so that samples depend on what was said before.
        """
        # An unknown variant is no error to espeak-ng: it speaks in the plain voice.
        if voice.variant and not (self._data / "voices" / "!v" / voice.variant).is_file():
            raise EspeakError(f"espeak-ng has no voice variant {voice.variant!r} in {self._data}")
        if self._library.espeak_SetVoiceByName(voice.espeak_name.encode()) != 0:
            raise EspeakError(f"espeak-ng has no voice {voice.espeak_name!r}")
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch if pitch is None else pitch, 0)
        self._pieces, self._phones, self._words = [], [], []
        # The library has one callback for all its users in a process: another one's may be in place, or gone.
        self._library.espeak_SetSynthCallback(self._callback)
        encoded = text.encode()
        if self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None) != 0:
            raise EspeakError(f"espeak-ng refused {text!r}")
        samples = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)
        return Spoken(samples, self.rate, tuple(self._phones), tuple(self._words))

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != 0:
            event = events[index]
            if event.type == _PHONE:
                self._phones.append(Mark(event.sample, phone=event.id.string.decode("utf-8", "replace")))
            elif event.type == _WORD:
                self._words.append(Mark(event.sample, first_letter=event.text_position - 1, letters=event.length))
            index += 1
        return 0
