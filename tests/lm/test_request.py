"""Requests say at once what is wrong with them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cosyvoice_core.errors import InputError
from cosyvoice_core.lm.request import StreamRequest, TokenRequest

SOUND = TokenRequest((1, 2, 3), max_tokens=24, min_tokens=4, seed=2**64 - 1, history=(1,) * 24)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt_ids": ()}, "prompt"),
        ({"max_tokens": 0, "min_tokens": 0}, "text"),
        ({"min_tokens": 30}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"history": (1,) * 25}, "history"),
    ],
)
def test_complete_text(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InputError) as raised:
        replace(SOUND, **changes)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"min_ratio": -1.0}, "min_ratio"),
        ({"min_ratio": 3.0, "max_ratio": 2.0}, "min_ratio"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_stream(values: dict[str, float], field: str) -> None:
    with pytest.raises(InputError) as raised:
        StreamRequest(**values)
    assert raised.value.field == field
