"""The sine in place, by whichever library is faster."""

from __future__ import annotations

import pytest
import torch

from cosyvoice_core.vocoder.sine import sine_


@pytest.mark.parametrize("threads", [1, 3])
def test_sine_is_taken_in_place_to_float32_precision(threads: int) -> None:
    before = torch.get_num_threads()
    values = torch.linspace(-300, 300, 70000).view(1, 7, -1)
    expected = values.double().sin().float()
    torch.set_num_threads(threads)
    try:
        assert sine_(values) is values
    finally:
        torch.set_num_threads(before)
    assert (values - expected).abs().max() < 2e-7


def test_sine_of_a_part_leaves_the_rest_alone() -> None:
    values = torch.ones(3, 8)
    sine_(values[:, 2:5])
    assert torch.equal(values[:, :2], torch.ones(3, 2))
    assert torch.allclose(values[:, 2:5], torch.ones(3, 3).sin())


def test_gradients_pass() -> None:
    values = torch.ones(4, requires_grad=True)
    sine_(values * 2).sum().backward()
    assert values.grad is not None
    assert torch.allclose(values.grad, 2 * torch.full((4,), 2.0).cos())
