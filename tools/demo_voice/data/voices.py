"""Which espeak-ng voices teach, and which are kept for judging prompts of voices that were never heard."""

from __future__ import annotations

from dataclasses import dataclass, replace

LANGUAGES = {"en": "en-us"}
"""Language of texts -> espeak-ng's language voice. Mandarin is `cmn` there."""


@dataclass(frozen=True, slots=True)
class Voice:
    """A variant of an espeak-ng language voice. pitch: 0 to 99, espeak's own measure."""

    name: str
    variant: str
    pitch: int
    language: str = "en-us"

    def __post_init__(self) -> None:
        if not 0 <= self.pitch <= 99:
            raise ValueError(f"pitch must be in 0..99, got {self.pitch}")

    def speaking(self, language: str) -> Voice:
        """The same variant in another language. Raises ValueError for one that is not in LANGUAGES."""
        if language not in LANGUAGES:
            raise ValueError(f"no espeak-ng voice is known for {language!r}; known: {', '.join(LANGUAGES)}")
        return replace(self, language=LANGUAGES[language])

    @property
    def espeak_name(self) -> str:
        return f"{self.language}+{self.variant}" if self.variant else self.language


def _voices(entries: str) -> tuple[Voice, ...]:
    pairs = (entry.split() for entry in entries.split(","))
    return tuple(Voice(name=f"demo_{variant}", variant=variant, pitch=int(pitch)) for variant, pitch in pairs)


SAVED = (
    Voice("demo_male", "", 45),
    Voice("demo_female", "f3", 60),
    Voice("demo_deep", "m3", 30),
    Voice("demo_bright", "f5", 50),
)
"""Voices that the checkpoint offers by name; the first teachers as well."""

TRAINING = (
    *SAVED,
    *_voices(
        "f1 55, f2 50, f4 45, m1 45, m2 40, m4 50, m5 40, m6 45, m7 50, m8 45, Alex 45, Andy 45, Annie 55, Michael 40,"
        "linda 50, belinda 50, steph 55, adam 45, edward 45, robert 40, max 45, anika 55, pablo 45, shelby 50"
    ),
)
UNSEEN = _voices("Andrea 55, Mario 45, john 40, aunty 45, zac 50")
"""Never trained on: prompts of these judge how a new voice carries over."""
