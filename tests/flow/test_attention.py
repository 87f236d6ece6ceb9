"""Attention over pieces and over inputs instead of keys is plain attention."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cosyvoice_core.flow.attention import CacheForm, attend, finish, project
from cosyvoice_core.flow.transformer import Attention


@pytest.mark.parametrize("lengths", [[7], [1, 6], [3, 1, 50, 2]])
@pytest.mark.parametrize("masked", [False, True])
def test_pieces_attend_as_one(lengths: list[int], masked: bool) -> None:
    torch.manual_seed(0)
    queries = torch.randn(2, 3, 5, 8)
    keys, values = torch.randn(2, 2, 3, sum(lengths), 8).unbind()
    # Scores of several hundred: what is put together must not overflow; they round to 1e-5 themselves.
    keys = keys * 100
    mask = torch.rand(5, sum(lengths)) < 0.5 if masked else None
    if mask is not None:
        mask[:, 0] = True
    expected = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=0.3)
    pieces = list(zip(keys.split(lengths, 2), values.split(lengths, 2), strict=True))
    assert (attend(queries, pieces, 0.3, mask) - expected).abs().max() <= 1e-4


def test_inputs_serve_as_keys_and_values() -> None:
    torch.manual_seed(0)
    layer = Attention(dim=24, heads=4, head_dim=8)
    x = torch.randn(2, 9, 24)
    results = []
    with torch.inference_mode():
        for form in CacheForm:
            projected = project(form, layer, x)
            attended = attend(projected.queries, [(projected.kept[0], projected.kept[-1])], 8**-0.5)
            results.append(finish(form, layer, attended))
    assert (results[0] - results[1]).abs().max() <= 1e-6
