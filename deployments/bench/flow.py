"""The flow decoder's scheduler: utterances of one known voice together, at several batch sizes.

All start together with all their tokens at hand, so what is measured is the flow alone. On a CPU processor time is
counted, so that other work on the machine disturbs the figures less.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from cosyvoice_core.bench.measure import Machine
from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.flow import FlowModel
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.memory import FlowMemory
from cosyvoice_core.flow.scheduler import Due, FlowScheduler, FlowVoice, Push, SchedulerLimits
from deployments.args import AppArgs, Device, DType, FlowArgs
from deployments.stage import resolve_device, resolve_dtype

_TOKEN_RATE = 25
_MEMORY_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class FlowLoad:
    """What is measured: so many utterances at once, of `tokens` speech tokens behind a prompt of `prompt_tokens`."""

    model: str
    concurrent: tuple[int, ...]
    tokens: int
    prompt_tokens: int
    device: Device
    dtype: DType
    threads: int
    repeats: int


@dataclass(frozen=True, slots=True)
class FlowFigures:
    """So many utterances at once: seconds of each repeat, and until all had their first chunk; their audio."""

    concurrent: int
    audio_s: float
    seconds: tuple[float, ...]
    first_s: tuple[float, ...]

    @property
    def audio_s_per_s(self) -> float:
        """By the median of the repeats."""
        return self.audio_s / median(self.seconds)


@dataclass(frozen=True, slots=True)
class FlowReport:
    load: FlowLoad
    counted: str
    figures: tuple[FlowFigures, ...]

    def render(self) -> str:
        """A table for people."""
        load = self.load
        rows = [
            f"flow of {load.model}, {load.tokens} tokens an utterance, {self.counted}, median of {load.repeats}",
            f"{'at once':>8}{'audio s/s':>11}{'RTF':>8}{'first chunks s':>16}",
        ]
        rows += [
            f"{one.concurrent:>8}{one.audio_s_per_s:>11.2f}{1 / one.audio_s_per_s:>8.4f}{median(one.first_s):>16.3f}"
            for one in self.figures
        ]
        return "\n".join(rows)

    def write(self, path: Path) -> None:
        """The same as JSON, with machine, versions, date and command."""
        record = {
            "title": "flow, utterances together",
            "machine": asdict(Machine.here(_device(self.load))),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "command": " ".join(["python", "-m", "deployments.bench", *sys.argv[1:]]),
            "counted": self.counted,
            "load": asdict(self.load),
            "figures": [asdict(one) | {"audio_s_per_s": one.audio_s_per_s} for one in self.figures],
        }
        path.write_text(json.dumps(record, indent=1) + "\n")


def run_flow(load: FlowLoad) -> FlowReport:
    """Measure each number of utterances, after one round that is not counted."""
    torch.set_num_threads(load.threads)
    device = _device(load)
    directory = CheckpointDirectory(resolve_model(AppArgs(model=load.model).model_source(), progress=True))
    config = read_model_config(directory.path).flow
    model = FlowModel.from_state(
        read_state(directory.flow),
        config,
        source=str(directory.flow),
        device=device,
        dtype=resolve_dtype(load.dtype),
    )
    generator = torch.Generator().manual_seed(0)
    voice = FlowVoice(
        "voice",
        torch.randint(0, config.vocab_size, (load.prompt_tokens,), generator=generator),
        torch.randn((config.mel_ratio * load.prompt_tokens, config.mel_bins), generator=generator),
        torch.randn((config.speaker_dim,), generator=generator),
    )
    tokens = torch.randint(0, config.vocab_size, (load.tokens,), generator=generator).tolist()
    figures = []
    for count in load.concurrent:
        print(f"{count} at once ...", file=sys.stderr, flush=True)
        rounds = [_speak(model, voice, tokens, count) for _ in range(load.repeats + 1)][1:]
        seconds, first_s = (tuple(one) for one in zip(*rounds, strict=True))
        figures.append(FlowFigures(count, count * load.tokens / _TOKEN_RATE, seconds, first_s))
    return FlowReport(load, "processor time" if device.type == "cpu" else "wall time", tuple(figures))


def _speak(model: FlowModel, voice: FlowVoice, tokens: list[int], count: int) -> tuple[float, float]:
    """Seconds of all utterances, and until each had its first chunk. Raises RuntimeError if mel is missing."""
    memory = FlowMemory(model, _MEMORY_BYTES, CacheForm.KEYS_VALUES)
    scheduler = FlowScheduler(model, memory, SchedulerLimits(batch=count), prefix_bytes=_MEMORY_BYTES)
    scheduler.warm(voice)
    pushes = [Push(scheduler.open(voice, partial(_due, turn), lambda: 0.0), tokens, True) for turn in range(count)]
    frames = dict.fromkeys(pushes, 0)
    left, first_s, began = pushes, 0.0, _now(model)
    while left:
        ended = set()
        for outcome in scheduler.step(left):
            if isinstance(outcome.result, Exception):
                raise outcome.result
            if outcome.result is None:
                ended.add(outcome.push)
            else:
                frames[outcome.push] += outcome.result.shape[1]
        left = [push for push in left if push not in ended]
        if not first_s and all(frames.values()):
            first_s = _now(model) - began
    seconds = _now(model) - began
    for push in pushes:
        scheduler.close(push.stream)
    if set(frames.values()) != {len(tokens) * model.config.mel_ratio}:
        raise RuntimeError(f"{sorted(frames.values())} frames came of {len(tokens)} tokens each")
    return seconds, first_s


def _now(model: FlowModel) -> float:
    if model.device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(model.device)
    return time.perf_counter()


def _due(turn: int) -> Due:
    return (0, float(turn))


def _device(load: FlowLoad) -> torch.device:
    return resolve_device(FlowArgs(device=load.device))
