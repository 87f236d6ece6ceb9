"""The vocoder's step loop: together as alone, urgent first, errors and leaving touch nobody else."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.vocoder import SourceNoise, Span, StreamWindow, Vocoder, WindowRunner, resize_mel
from cosyvoice_core.vocoder.section import Extent
from cosyvoice_core.waveform import WaveformSession
from deployments.compute import ListenerClock
from deployments.vocoder_engine import OnStep, Piece, VocoderEngine
from tests.golden_tests.configs import vocoder_config
from tests.vocoder.test_stream import gap, random_mel

PROMISED = 1e-4
HOP = 480


@pytest.fixture(scope="module")
def tiny(golden_acoustic: Path) -> Vocoder:
    config = vocoder_config(golden_acoustic / "config.json")
    return Vocoder.from_state(read_state(golden_acoustic / "hift.pt"), config, "hift.pt")


def engine_of(vocoder: Vocoder, max_batch: int = 4, on_step: OnStep | None = None) -> VocoderEngine:
    runner = WindowRunner(vocoder, StreamWindow(), max_batch)
    return VocoderEngine(runner) if on_step is None else VocoderEngine(runner, on_step)


@dataclass(frozen=True)
class Spoken:
    """One utterance as a test plays it: pushes of so many frames, `patience` pieces until the listener leaves."""

    sizes: tuple[int, ...]
    seed: int = 0
    speed: float = 1.0
    skipped: float = 0.0
    patience: int | None = None

    @property
    def mel(self) -> Tensor:
        return random_mel(sum(self.sizes), self.seed)

    def one_shot(self, vocoder: Vocoder) -> Tensor:
        return vocoder.vocode(resize_mel(self.mel, self.speed)[None], SourceNoise(self.seed))[0]

    async def play(self, engine: VocoderEngine, vocoder: Vocoder) -> tuple[int, Tensor]:
        """Samples that are skipped, and those that were heard after them."""
        skip = int(self.skipped * HOP * sum(self.sizes) / self.speed)
        session = WaveformSession(vocoder, seed=self.seed, speed=self.speed, skip_samples=skip)
        clock, heard, pieces, start = ListenerClock(), [torch.zeros(0)], 0, 0
        for number, size in enumerate(self.sizes):
            piece, start = self.mel[:, start : start + size], start + size
            last = number == len(self.sizes) - 1
            async with aclosing(engine.push(session, piece, clock, last=last)) as audio:
                async for part in audio:
                    heard.append(part.samples)
                    clock.sent(part.samples.numel() / 24000)
                    pieces += 1
                    if pieces == self.patience:
                        return skip, torch.cat(heard)
            if number % 2:
                await asyncio.sleep(0)
        return skip, torch.cat(heard)


utterances = st.builds(
    Spoken,
    sizes=st.lists(st.integers(0, 130), min_size=1, max_size=5).map(tuple),
    seed=st.integers(0, 5),
    speed=st.one_of(st.just(1.0), st.floats(0.5, 2.0)),
    skipped=st.one_of(st.just(0.0), st.floats(0.0, 1.1)),
    patience=st.one_of(st.none(), st.integers(1, 4)),
)


@settings(max_examples=25)
@given(spoken=st.lists(utterances, min_size=1, max_size=6), max_batch=st.integers(1, 4))
def test_whatever_the_company_an_utterance_sounds_as_in_one_shot(
    tiny: Vocoder, spoken: list[Spoken], max_batch: int
) -> None:
    """Random pushes, speeds, resumptions, listeners that leave; equal samples leave no room for a click at a seam."""

    async def together() -> list[tuple[int, Tensor]]:
        engine = engine_of(tiny, max_batch)
        results = await asyncio.gather(*(one.play(engine, tiny) for one in spoken))
        assert engine.running == 0
        return results

    for one, (skip, heard) in zip(spoken, asyncio.run(together()), strict=True):
        expected = one.one_shot(tiny)[skip:]
        if one.patience is None:
            assert len(heard) == len(expected)
        assert gap(heard, expected[: len(heard)]) < PROMISED


async def test_windows_of_many_utterances_go_as_one_batch(tiny: Vocoder) -> None:
    rows: list[int] = []
    engine = engine_of(tiny, 3, lambda count, _seconds: rows.append(count))
    await asyncio.gather(*(Spoken((size,), seed=size).play(engine, tiny) for size in (40, 41, 42, 43)))
    assert sorted(rows) == [1, 3]


async def test_pieces_leave_one_by_one_and_the_last_says_so(tiny: Vocoder) -> None:
    engine, session = engine_of(tiny), WaveformSession(tiny, seed=1)
    mel = random_mel(250)
    sizes = [
        (piece.samples.numel() // HOP, piece.complete)
        async for piece in engine.push(session, mel, ListenerClock(), last=True)
    ]
    assert sizes == [(100, False), (100, False), (50, True)]


async def test_mel_that_completes_nothing_gives_one_empty_piece(tiny: Vocoder) -> None:
    engine, session = engine_of(tiny), WaveformSession(tiny, seed=1)
    pieces = [piece async for piece in engine.push(session, random_mel(15), ListenerClock(), last=False)]
    assert [(piece.samples.numel(), piece.complete) for piece in pieces] == [(0, True)]


async def test_a_new_listener_passes_one_who_is_ahead(tiny: Vocoder) -> None:
    engine = engine_of(tiny, 1)
    order: list[str] = []

    async def listen(name: str, clock: ListenerClock) -> None:
        session = WaveformSession(tiny, seed=1)
        async for _ in engine.push(session, random_mel(400), clock, last=True):
            order.append(name)  # noqa: PERF401 - the order across tasks is what is looked at

    ahead = ListenerClock()
    ahead.sent(60.0)
    first = asyncio.create_task(listen("ahead", ahead))
    await asyncio.sleep(0)
    await listen("new", ListenerClock())
    await first
    assert order.index("new") <= 1
    assert order[-1] == "ahead"


async def test_leaving_frees_the_place_and_harms_nobody(tiny: Vocoder) -> None:
    rows: list[int] = []
    engine = engine_of(tiny, 4, lambda count, _seconds: rows.append(count))
    stays = Spoken((60, 60, 60, 60), seed=3)
    other = asyncio.create_task(stays.play(engine, tiny))
    await Spoken((5000,), seed=4, patience=1).play(engine, tiny)
    assert engine.running <= 1
    assert gap((await other)[1], stays.one_shot(tiny)) < PROMISED
    assert engine.running == 0
    assert len(rows) < 12


async def test_a_window_under_way_when_its_listener_leaves_is_dropped(tiny: Vocoder) -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold(_rows: int, _seconds: float) -> None:
        entered.set()
        gate.wait(10)

    engine = engine_of(tiny, 4, hold)
    leaving = asyncio.create_task(Spoken((60,)).play(engine, tiny))
    await asyncio.to_thread(entered.wait, 10)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert engine.running == 0
    gate.set()
    stays = Spoken((60,), seed=2)
    assert gap((await stays.play(engine, tiny))[1], stays.one_shot(tiny)) < PROMISED


async def test_a_broken_utterance_fails_alone(tiny: Vocoder) -> None:
    engine = engine_of(tiny)
    mel = random_mel(60)
    mel[3, 20] = torch.nan

    async def fail() -> list[Piece]:
        session = WaveformSession(tiny, seed=1)
        return [piece async for piece in engine.push(session, mel, ListenerClock(), last=True)]

    fine = Spoken((60,), seed=2)
    broken, heard = await asyncio.gather(fail(), fine.play(engine, tiny), return_exceptions=True)
    assert isinstance(broken, EngineError)
    assert isinstance(heard, tuple)
    assert gap(heard[1], fine.one_shot(tiny)) < PROMISED


async def test_when_a_batch_fails_only_the_culprit_does(tiny: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator is made to fail on a marked row, as a device may on one row's values."""
    forward = tiny.generator.forward
    mark = 77.0

    def refusing(mel: Tensor, source: Tensor, keep: Span, extent: Extent) -> Tensor:
        if bool((mel == mark).any()):
            raise RuntimeError("a row that cannot be computed")
        return forward(mel, source, keep, extent)

    monkeypatch.setattr(tiny.generator, "forward", refusing)
    rows: list[int] = []
    engine = engine_of(tiny, 4, lambda count, _seconds: rows.append(count))
    mel = random_mel(60)
    mel[0, 0] = mark

    async def fail() -> None:
        async for _ in engine.push(WaveformSession(tiny, seed=1), mel, ListenerClock(), last=True):
            pass

    fine = [Spoken((60,), seed=seed) for seed in (2, 3)]
    culprit, *others = await asyncio.gather(fail(), *(one.play(engine, tiny) for one in fine), return_exceptions=True)
    assert isinstance(culprit, EngineError)
    assert "cannot be computed" in str(culprit)
    monkeypatch.undo()
    for one, heard in zip(fine, others, strict=True):
        assert isinstance(heard, tuple)
        assert gap(heard[1], one.one_shot(tiny)) < PROMISED
    assert rows == [1, 1]


async def test_mel_that_does_not_fit_is_refused_alone(tiny: Vocoder) -> None:
    engine = engine_of(tiny)

    async def fail() -> None:
        async for _ in engine.push(WaveformSession(tiny, seed=1), torch.zeros(79, 5), ListenerClock(), last=True):
            pass

    fine = Spoken((60,), seed=2)
    refused, heard = await asyncio.gather(fail(), fine.play(engine, tiny), return_exceptions=True)
    assert isinstance(refused, InputError)
    assert isinstance(heard, tuple)


async def test_a_fault_of_the_loop_leaves_nobody_waiting(tiny: Vocoder) -> None:
    def fault(_rows: int, _seconds: float) -> None:
        raise ValueError("a fault of the loop")

    engine = engine_of(tiny, 4, fault)
    playing = (Spoken((60,), seed=seed).play(engine, tiny) for seed in range(2))
    results = await asyncio.wait_for(asyncio.gather(*playing, return_exceptions=True), 10)
    assert all(isinstance(result, EngineError) for result in results)
    assert engine.running == 0
