"""One request as it is planned, and how a mix of them is drawn: same seed, same requests in the same order."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from loadtest.errors import ScenarioError
from loadtest.scenario import Mix, VoiceKind, Writing
from loadtest.texts import Texts

Kind = TypeVar("Kind", bound=str)


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """What one listener asks for.

    request_id: unlike that of any other run, so that the service's logs can be joined. voice: name of a saved voice,
    for kind `known`. upload: number of the prompt audio's variant for the other kinds; a number is a distinct
    recording to the service. seed: of the speech itself. leaves_after_s: seconds after the intended start at which the
    listener hangs up, heard or not. writing: how fast a growing text is written.
    """

    number: int
    request_id: str
    door: str
    language: str
    length: str
    text: str
    voice_kind: VoiceKind
    voice: str | None
    upload: int | None
    seed: int
    realtime: bool = True
    leaves_after_s: float | None = None
    writing: Writing = field(default_factory=Writing)


class Draw:
    """Draws requests without end. Request `n` depends on seed and `n` alone, never on what was drawn before."""

    def __init__(
        self, mix: Mix, texts: Texts, voices: Sequence[str], seed: int, writing: Writing | None = None
    ) -> None:
        """voices: names that may be asked for. Raises ScenarioError where the mix wants what is not there."""
        for language in _wanted(mix.languages):
            for length in _wanted(mix.lengths):
                texts.of(language, length)
        unknown = sorted(set(mix.names) - set(voices))
        if unknown:
            raise ScenarioError(f"mix.names: the service has no voice {', '.join(unknown)}; it has {', '.join(voices)}")
        self._names = mix.names or tuple(voices)
        if not self._names and mix.voices.get("known"):
            raise ScenarioError("mix.voices: the service has no saved voices; use new or repeated")
        self._mix = mix
        self._texts = texts
        self._seed = seed
        self._writing = writing or Writing()
        self._run = secrets.token_hex(4)

    def request(self, number: int) -> PlannedRequest:
        chance = np.random.default_rng((self._seed, number))
        mix = self._mix
        door = _choice(chance, mix.doors)
        language, length = _choice(chance, mix.languages), _choice(chance, mix.lengths)
        kind = _choice(chance, mix.voices)
        texts = self._texts.of(language, length)
        text = texts[int(chance.integers(len(texts)))]
        name = self._names[int(chance.integers(len(self._names)))] if kind == "known" else None
        upload = {"known": None, "repeated": 0, "new": number + 1}[kind]
        leaves = float(chance.uniform(0, mix.cancel_within_s)) if chance.random() < mix.cancels else None
        seed = int(chance.integers(2**31))
        return PlannedRequest(
            number=number,
            request_id=f"loadtest-{self._run}-{number}",
            door=door,
            language=language,
            length=length,
            text=text,
            voice_kind=kind,
            voice=name,
            upload=upload,
            seed=seed,
            realtime=mix.realtime,
            leaves_after_s=leaves,
            writing=self._writing,
        )


def _wanted(shares: Mapping[Kind, float]) -> list[Kind]:
    return [name for name, share in shares.items() if share > 0]


def _choice(chance: np.random.Generator, shares: Mapping[Kind, float]) -> Kind:
    names = list(shares)
    weights = np.array([shares[name] for name in names])
    return names[int(chance.choice(len(names), p=weights / weights.sum()))]
