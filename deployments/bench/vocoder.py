"""The vocoder's step loop: utterances together against the same ones in turn, at several batch sizes.

Every utterance is pushed as the flow decoder gives it, 50 frames at a time, and waits for its own audio in between.
On a CPU processor time is counted, so that other work on the machine disturbs the figures less.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from cosyvoice_core.bench.measure import Machine
from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.layout import vocoder_layout
from cosyvoice_core.checkpoint.random import random_state
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import VocoderConfig
from cosyvoice_core.vocoder import StreamWindow, Vocoder, WindowRunner, reserve_kernels
from cosyvoice_core.waveform import WaveformSession
from deployments.args import AppArgs, Device, VocoderArgs
from deployments.compute import ListenerClock
from deployments.stage import resolve_device
from deployments.vocoder_engine import VocoderEngine

CHUNK_FRAMES = 50
_WINDOW = StreamWindow(sizes=(50, 75))
"""Few sizes: warming up more of them would take longer than what is measured."""


@dataclass(frozen=True, slots=True)
class VocoderLoad:
    """What is measured: utterances of so many frames at once. Without a model, official dims and random weights."""

    model: str | None
    concurrent: tuple[int, ...]
    frames: int
    device: Device
    threads: int
    repeats: int


@dataclass(frozen=True, slots=True)
class VocoderFigures:
    """So many utterances at once: seconds of all together and in turn, the best of all repeats, and their audio."""

    concurrent: int
    audio_s: float
    together_s: float
    in_turn_s: float
    warm_up_s: float
    shapes: int


@dataclass(frozen=True, slots=True)
class VocoderReport:
    load: VocoderLoad
    counted: str
    figures: tuple[VocoderFigures, ...]

    def render(self) -> str:
        """A table for people; real-time factor = seconds / audio."""
        rows = [
            f"vocoder of {self.load.model or 'official size'}, {self.load.frames} frames an utterance, {self.counted}",
            f"{'at once':>8}{'together':>10}{'in turn':>10}{'ratio':>8}{'warm-up s':>11}{'shapes':>8}",
        ]
        rows += [
            f"{one.concurrent:>8}{one.together_s / one.audio_s:>10.4f}{one.in_turn_s / one.audio_s:>10.4f}"
            f"{one.together_s / one.in_turn_s:>8.2f}{one.warm_up_s:>11.1f}{one.shapes:>8}"
            for one in self.figures
        ]
        return "\n".join(rows)

    def write(self, path: Path) -> None:
        """The same as JSON, with machine, versions, date and command."""
        record = {
            "title": "vocoder together and in turn",
            "machine": asdict(Machine.here(_device(self.load))),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "command": " ".join(["python", "-m", "deployments.bench", *sys.argv[1:]]),
            "counted": self.counted,
            "load": asdict(self.load),
            "figures": [asdict(one) for one in self.figures],
        }
        path.write_text(json.dumps(record, indent=1) + "\n")


async def run_vocoder(load: VocoderLoad) -> VocoderReport:
    """Measure each load with a runner of its own."""
    torch.set_num_threads(load.threads)
    device = _device(load)
    vocoder = _vocoder(load.model).to(device)
    reserve_kernels(sum(len(WindowRunner(vocoder, _WINDOW, count).cases()) for count in load.concurrent))
    counted = "processor time" if device.type == "cpu" else "wall time"
    return VocoderReport(load, counted, tuple([await _measure(vocoder, load, count) for count in load.concurrent]))


async def _measure(vocoder: Vocoder, load: VocoderLoad, count: int) -> VocoderFigures:
    print(f"{count} at once ...", file=sys.stderr, flush=True)
    window = _WINDOW
    now = time.process_time if vocoder.device.type == "cpu" else time.perf_counter
    alone, batched = WindowRunner(vocoder, window, 1), WindowRunner(vocoder, window, count)
    alone.warm_up()
    began = now()
    shapes = batched.warm_up()
    warm_up_s = now() - began
    together, in_turn = VocoderEngine(batched), VocoderEngine(alone)
    spent: dict[VocoderEngine, list[float]] = {together: [], in_turn: []}
    for _ in range(load.repeats):
        began = now()
        await asyncio.gather(*(_speak(together, vocoder, window, load.frames, seed) for seed in range(count)))
        spent[together].append(now() - began)
        began = now()
        for seed in range(count):
            await _speak(in_turn, vocoder, window, load.frames, seed)
        spent[in_turn].append(now() - began)
    audio_s = count * load.frames * vocoder.config.samples_per_frame / vocoder.config.sample_rate
    return VocoderFigures(count, audio_s, min(spent[together]), min(spent[in_turn]), warm_up_s, shapes)


async def _speak(engine: VocoderEngine, vocoder: Vocoder, window: StreamWindow, frames: int, seed: int) -> None:
    """One utterance; raises RuntimeError if audio is missing."""
    steps = torch.randn(vocoder.config.mel_bins, frames, generator=torch.Generator().manual_seed(seed))
    mel = steps.cumsum(1).mul_(0.3).sin_().mul_(2.0).sub_(1.0).to(vocoder.device)
    session, clock, heard = WaveformSession(vocoder, seed=seed, window=window), ListenerClock(), 0
    for start in range(0, frames, CHUNK_FRAMES):
        chunk = mel[:, start : start + CHUNK_FRAMES]
        async with aclosing(engine.push(session, chunk, clock, last=start + CHUNK_FRAMES >= frames)) as pieces:
            async for piece in pieces:
                heard += piece.samples.numel()
                clock.sent(piece.samples.numel() / vocoder.config.sample_rate)
    if heard != frames * vocoder.config.samples_per_frame:
        raise RuntimeError(f"{heard} samples came for {frames} frames")


def _vocoder(model: str | None) -> Vocoder:
    if model is None:
        config = VocoderConfig()
        return Vocoder.from_state(random_state(vocoder_layout(config), 0, "hift.pt"), config, "random vocoder")
    directory = CheckpointDirectory(resolve_model(AppArgs(model=model).model_source(), progress=True))
    config = read_model_config(directory.path).vocoder
    return Vocoder.from_state(read_state(directory.vocoder), config, str(directory.vocoder))


def _device(load: VocoderLoad) -> torch.device:
    return resolve_device(VocoderArgs(device=load.device))
