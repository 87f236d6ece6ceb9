"""Stretched mel is the same for any chunking; speeds and shapes are checked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.errors import InputError
from cosyvoice_core.vocoder import SpeedStream, reference_resize, resize_mel

speeds = st.one_of(st.sampled_from([0.5, 0.8, 1.0, 1.25, 1.5, 2.0]), st.floats(0.5, 2.0))


@settings(max_examples=200)
@given(speed=speeds, sizes=st.lists(st.integers(0, 12), min_size=1, max_size=12))
def test_any_chunking_equals_one_shot_bit_by_bit(speed: float, sizes: list[int]) -> None:
    mel = torch.randn(4, sum(sizes), generator=torch.Generator().manual_seed(sum(sizes)))
    stream = SpeedStream(speed)
    given_out = [
        stream.push(piece, number == len(sizes) - 1) for number, piece in enumerate(mel.split_with_sizes(sizes, 1))
    ]
    whole = resize_mel(mel, speed)
    assert whole.shape == (4, int(sum(sizes) / speed))
    assert torch.equal(torch.cat(given_out, 1), whole)


@pytest.mark.parametrize("speed", [0.5, 0.77, 1.0, 1.3, 2.0])
def test_frames_are_read_where_they_should(speed: float) -> None:
    mel = torch.randn(3, 37, generator=torch.Generator().manual_seed(0))
    stretched = resize_mel(mel, speed)
    positions = np.clip((np.arange(stretched.shape[1]) + 0.5) * speed - 0.5, 0, 36)
    for ours, row in zip(stretched, mel, strict=True):
        assert np.allclose(ours.numpy(), np.interp(positions, np.arange(37), row.numpy()), atol=1e-6)


def test_unchanged_speed_changes_and_delays_nothing() -> None:
    mel, stream = torch.randn(3, 20), SpeedStream(1.0)
    assert torch.equal(stream.push(mel, False), mel)
    assert stream.push(mel[:, :0], True).shape == (3, 0)


def test_frames_leave_as_soon_as_their_neighbours_are_there() -> None:
    stream, left = SpeedStream(0.75), 0
    for arrived in range(1, 31):
        left += stream.push(torch.randn(2, 1), False).shape[1]
        assert int(arrived / 0.75) - left <= 2


def test_reference_agrees_where_the_length_divides() -> None:
    mel = torch.randn(1, 5, 40)
    for speed in (0.5, 0.8, 1.25, 2.0):
        assert torch.allclose(reference_resize(mel, speed)[0], resize_mel(mel[0], speed), atol=1e-5)


@pytest.mark.parametrize("speed", [0.49, 2.01, float("nan"), float("inf"), -1.0])
def test_speed_out_of_range_is_refused(speed: float) -> None:
    for use in (SpeedStream, lambda value: reference_resize(torch.zeros(1, 2, 3), value)):
        with pytest.raises(InputError, match="speed"):
            use(speed)


def test_misuse_is_refused() -> None:
    stream = SpeedStream(1.5)
    with pytest.raises(InputError, match="mel"):
        stream.push(torch.zeros(1, 2, 3), False)
    stream.push(torch.zeros(2, 3), False)
    with pytest.raises(InputError, match="bins"):
        stream.push(torch.zeros(3, 3), False)
    stream.push(torch.zeros(2, 0), True)
    with pytest.raises(InputError, match="last"):
        stream.push(torch.zeros(2, 1), True)
