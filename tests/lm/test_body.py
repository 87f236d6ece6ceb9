"""The decoder: ragged batches, growing caches, repeated attempts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cosyvoice_core.config import LMConfig
from cosyvoice_core.errors import InputError
from cosyvoice_core.lm.body import Span, SpeechBody
from cosyvoice_core.lm.merge import checkpoint_layout, merge
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

ROUNDING = 2e-5


def random_body(config: LMConfig, dtype: torch.dtype = torch.float32) -> SpeechBody:
    vocabulary = SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)
    generator = torch.Generator().manual_seed(1)
    state = {
        key: torch.randn(shape, generator=generator) / max(1.0, shape[-1]) ** 0.5
        for key, shape in checkpoint_layout(config, vocabulary).items()
    }
    return SpeechBody(merge(state, config, vocabulary), config, dtype=dtype)


CONFIG = LMConfig(
    hidden=24,
    layers=2,
    heads=6,
    kv_heads=2,
    head_dim=8,
    intermediate=40,
    text_rows=30,
    speech_tokens=50,
    rope_theta=1e4,
)


@pytest.fixture(scope="module")
def body() -> SpeechBody:
    return random_body(CONFIG)


def plain_hidden(body: SpeechBody, ids: list[int]) -> Tensor:
    """All positions of one sequence in one forward."""
    return body.forward(ids, [Span(body.new_cache(), 0, len(ids))])


def test_rows_of_many_sequences_mix(body: SpeechBody) -> None:
    """One step with a fresh prompt, a decode row, and the continuation of a prompt."""
    first, second, third = list(range(1, 12)), list(range(40, 60)), list(range(20, 27))
    caches = [body.new_cache() for _ in range(3)]
    body.forward(first[:10] + second[:13], [Span(caches[0], 0, 10), Span(caches[1], 0, 13)])
    caches[0].length, caches[1].length = 10, 13
    mixed = body.forward(
        first[10:] + third + second[13:], [Span(caches[0], 10, 1), Span(caches[2], 0, 7), Span(caches[1], 13, 7)]
    )
    expected = torch.cat([plain_hidden(body, first)[10:], plain_hidden(body, third), plain_hidden(body, second)[13:]])
    torch.testing.assert_close(mixed, expected, rtol=0, atol=ROUNDING)


def test_spans_of_one_sequence_follow_each_other_in_one_forward(body: SpeechBody) -> None:
    ids = list(range(3, 20))
    cache = body.new_cache()
    hidden = body.forward(ids, [Span(cache, 0, 9), *(Span(cache, position, 1) for position in range(9, 17))])
    torch.testing.assert_close(hidden, plain_hidden(body, ids), rtol=0, atol=ROUNDING)


def test_the_cache_grows_and_keeps_what_it_has(body: SpeechBody) -> None:
    ids = [(7 * position) % 80 for position in range(600)]
    cache = body.new_cache()
    small = cache.capacity
    parts = []
    for start in range(0, 600, 90):
        part = ids[start : start + 90]
        parts.append(body.forward(part, [Span(cache, start, len(part))]))
        cache.length = start + len(part)
    assert small < 600 <= cache.capacity
    torch.testing.assert_close(torch.cat(parts), plain_hidden(body, ids), rtol=0, atol=ROUNDING)


def test_a_step_that_was_not_counted_can_be_repeated(body: SpeechBody) -> None:
    cache = body.new_cache()
    body.forward([1, 2, 3], [Span(cache, 0, 3)])
    cache.length = 3
    body.forward([70, 71, 72, 73], [Span(cache, 3, 4)])
    again = body.forward([4, 5], [Span(cache, 3, 2)])
    torch.testing.assert_close(again, plain_hidden(body, [1, 2, 3, 4, 5])[3:], rtol=0, atol=ROUNDING)


def test_logits_are_float32_and_one_row_per_hidden_state(body: SpeechBody) -> None:
    half = random_body(CONFIG, torch.bfloat16)
    logits = half.logits(plain_hidden(half, [1, 2, 3]))
    assert (logits.dtype, logits.shape) == (torch.float32, (3, 53))
    exact = body.logits(plain_hidden(body, [1, 2, 3]))
    torch.testing.assert_close(logits, exact, rtol=0, atol=0.1)
    assert not torch.equal(logits, exact)


def test_an_unknown_id_is_refused_before_anything_is_computed(body: SpeechBody) -> None:
    for bad in (-1, body.input_rows):
        with pytest.raises(InputError):
            body.forward([1, bad], [Span(body.new_cache(), 0, 2)])


def test_spans_must_cover_the_ids(body: SpeechBody) -> None:
    with pytest.raises(ValueError, match="3 ids"):
        body.forward([1, 2, 3], [Span(body.new_cache(), 0, 2)])
