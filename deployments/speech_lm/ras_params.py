"""What a request tells `RasProcessor`, and how that travels in vLLM's `SamplingParams.extra_args`.

Knows neither vLLM nor tensors. Source: docs/model.md, "Sampling (RAS)".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.errors import InputError
from cosyvoice_core.lm.draw import seed_word

KEY = "ras"
LOOKBACK = 320
"""How many positions of the sequence, text among them, are searched for the last `window` speech tokens."""
WIDEST_WINDOW = 64


def broken_id(speech_tokens: int) -> int:
    """What a row says whose scores are not numbers: the head's unused id, which no plan allows."""
    return speech_tokens + 1


_REQUIRED = frozenset({"top_p", "top_k", "window", "tau", "start"})
_OPTIONAL = frozenset({"temperature", "seed", "position"})
_INT32 = 2**31


@dataclass(frozen=True, slots=True)
class RasParams:
    """Repetition-aware sampling of one turn of a request, from its prompt to its end.

    sampling: its temperature is applied with the rest, while the temperature that vLLM is told stays 1. start: index
    in the sequence of the first generated position, the same in every turn of a text stream: tokens before it are
    the reference voice's and not in the window. seed: the draws are then those of the torch engine, a function of
    (seed, position, id); without one, vLLM draws from the distribution by its own generator. position: how many ids
    were drawn before this turn, fill and discarded ones included; used with a seed only.
    """

    sampling: SamplingConfig
    start: int
    seed: int | None = None
    position: int = 0

    def __post_init__(self) -> None:
        _require("window", self.sampling.window, 0, WIDEST_WINDOW)
        _require("top_k", self.sampling.top_k, 1, _INT32)
        _require("start", self.start, 0, _INT32)
        _require("position", self.position, 0, _INT32)
        if self.seed is not None:
            _require("seed", self.seed, -(2**63), 2**64 - 1)

    def extra_args(self) -> dict[str, dict[str, float]]:
        """Numbers only, integers within signed 64 bits, so that any message format carries them."""
        sampling = self.sampling
        args = {
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "window": sampling.window,
            "tau": sampling.tau,
            "temperature": sampling.temperature,
            "start": self.start,
            "position": self.position,
        }
        if self.seed is not None:
            args["seed"] = seed_word(self.seed)
        return {KEY: args}

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> RasParams | None:
        """What `extra_args` made; None when it does not ask for RAS. Raises InputError when something is wrong."""
        if not extra_args or KEY not in extra_args:
            return None
        args = extra_args[KEY]
        if not isinstance(args, Mapping):
            raise InputError(KEY, "is not a mapping", ", ".join(sorted(_REQUIRED | _OPTIONAL)))
        missing, unknown = _REQUIRED - set(args), set(args) - _REQUIRED - _OPTIONAL
        if missing or unknown:
            problem = f"lacks {sorted(missing)}" if missing else f"has unknown {sorted(map(str, unknown))}"
            raise InputError(KEY, problem, ", ".join(sorted(_REQUIRED | _OPTIONAL)))
        try:
            sampling = SamplingConfig(
                top_p=_number("top_p", args["top_p"]),
                top_k=_integer("top_k", args["top_k"]),
                window=_integer("window", args["window"]),
                tau=_number("tau", args["tau"]),
                temperature=_number("temperature", args.get("temperature", 1.0)),
            )
        except ValueError as error:
            raise InputError(KEY, str(error)) from error
        seed = args.get("seed")
        return cls(
            sampling,
            start=_integer("start", args["start"]),
            seed=None if seed is None else _integer("seed", seed),
            position=_integer("position", args.get("position", 0)),
        )


def _require(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InputError(f"{KEY}.{field}", f"{value} is out of range", f"{least}..{most}")


def _integer(field: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{KEY}.{field}", f"{value!r} is not an integer")
    return value


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{KEY}.{field}", f"{value!r} is not a number")
    return float(value)
