"""Batches of fixed shapes: filled up without a trace, and all of them met before the first one counts."""

from __future__ import annotations

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


def test_batch_sizes_double_up_to_the_largest(tiny: Vocoder) -> None:
    assert WindowRunner(tiny, WINDOW, max_batch=1).batch_sizes() == [1]
    assert WindowRunner(tiny, WINDOW, max_batch=6).batch_sizes() == [1, 2, 4, 6]
    assert WindowRunner(tiny, WINDOW, max_batch=16).batch_sizes() == [1, 2, 4, 8, 16]


def test_what_cannot_run_is_refused(tiny: Vocoder) -> None:
    with pytest.raises(ValueError, match="max_batch"):
        WindowRunner(tiny, WINDOW, max_batch=0)
    with pytest.raises(ValueError, match="CUDA"):
        WindowRunner(tiny, WINDOW, max_batch=1, record=True)
