"""Batches of fixed shapes: filled up without a trace, and all of them met before the first one counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cosyvoice_core.vocoder import PreparedWindow, StreamWindow, Vocoder, VocoderStream, WindowRunner, vocode_windows
from tests.vocoder.test_stream import ROUNDING, gap, random_mel

WINDOW = StreamWindow(sizes=(20, 35))


def first_windows(vocoder: Vocoder, count: int) -> list[PreparedWindow]:
    windows = []
    for seed in range(count):
        stream = VocoderStream(vocoder, seed, WINDOW)
        stream.feed(random_mel(40 + seed, seed), False)
        window = stream.window()
        assert window is not None
        windows.append(window)
    return windows


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_a_batch_that_is_filled_up_gives_what_its_windows_give(tiny: Vocoder, count: int) -> None:
    windows = first_windows(tiny, count)
    results = WindowRunner(tiny, WINDOW, max_batch=6).run(windows)
    assert len(results) == count
    for window, result in zip(windows, results, strict=True):
        alone = vocode_windows(tiny, [window])[0]
        for name in ("audio", "source", "phase"):
            assert gap(getattr(result, name), getattr(alone, name)) < ROUNDING


def test_after_warming_up_nothing_of_a_new_shape_is_computed(tiny: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[tuple[int, ...]] = set()
    conv1d = torch.nn.functional.conv1d

    def noted(values: Tensor, weight: Tensor, *more: object, **named: object) -> Tensor:
        met.add((*values.shape, *weight.shape))
        return conv1d(values, weight, *more, **named)

    monkeypatch.setattr(torch.nn.functional, "conv1d", noted)
    runner = WindowRunner(tiny, WINDOW, max_batch=2)
    assert runner.warm_up() == 2 * 2 * 2
    known = set(met)
    for frames in (8, 41, 97, 150):
        streams = [VocoderStream(tiny, seed, WINDOW) for seed in range(2)]
        for stream in streams:
            stream.feed(random_mel(frames), True)
        while windows := [window for stream in streams if (window := stream.window()) is not None]:
            for stream, result in zip(streams, runner.run(windows), strict=True):
                stream.emit(result)
    assert met == known


_TWICE = """
import sys
from pathlib import Path

import torch
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.vocoder import StreamWindow, Vocoder, WindowRunner, reserve_kernels

demo = Path(sys.argv[1])
vocoder = Vocoder.from_state(read_state(demo / "hift.pt"), read_model_config(demo).vocoder, "hift.pt")
runner = WindowRunner(vocoder, StreamWindow(), max_batch=1)
reserve_kernels(len(runner.cases()))
runner.warm_up()
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON_CREATION):
    runner.warm_up()
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
def test_no_kernel_is_compiled_after_warming_up(demo_checkpoint: Path) -> None:
    """In a process of its own: oneDNN reads how much to keep when it computes for the first time."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONEDNN")}
    command = [sys.executable, "-c", _TWICE, str(demo_checkpoint.absolute())]
    root = Path(__file__).parents[2]
    told = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True).stdout
    assert "create:cache_hit" in told
    assert "create:cache_miss" not in told


def test_batch_sizes_double_up_to_the_largest(tiny: Vocoder) -> None:
    assert WindowRunner(tiny, WINDOW, max_batch=1).batch_sizes() == [1]
    assert WindowRunner(tiny, WINDOW, max_batch=6).batch_sizes() == [1, 2, 4, 6]
    assert WindowRunner(tiny, WINDOW, max_batch=16).batch_sizes() == [1, 2, 4, 8, 16]


def test_what_cannot_run_is_refused(tiny: Vocoder) -> None:
    with pytest.raises(ValueError, match="max_batch"):
        WindowRunner(tiny, WINDOW, max_batch=0)
    with pytest.raises(ValueError, match="CUDA"):
        WindowRunner(tiny, WINDOW, max_batch=1, record=True)
