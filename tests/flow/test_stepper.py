"""Streams that step together, share a voice's prefix and leave in any order sound as they do alone."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosyvoice_core.flow import FlowSession
from cosyvoice_core.flow.prefix import FlowPrefix, PrefixCache
from cosyvoice_core.flow.stepper import FlowStepper
from cosyvoice_core.flow.stream import FlowStream
from tests.flow.test_session import MODEL, prompt, random_tokens

STEPPER = FlowStepper(MODEL)


def alone(prompt_length: int, tokens: Tensor) -> Tensor:
    return FlowSession(MODEL, *prompt(prompt_length)).push(tokens, last=True)


@settings(max_examples=15, deadline=None)
@given(
    utterances=st.lists(st.tuples(st.sampled_from([0, 3, 25, 28, 40, 60]), st.integers(1, 70)), min_size=1, max_size=5),
    order=st.integers(0, 2**32),
    most=st.integers(1, 4),
    leaving=st.integers(0, 4),
)
def test_any_interleaving_gives_each_stream_its_own_mel(
    utterances: list[tuple[int, int]], order: int, most: int, leaving: int
) -> None:
    """Tokens arrive at random, any subset steps at any time, one stream leaves in the middle."""
    chooser = random.Random(order)
    streams = [FlowStream(MODEL, *prompt(length)) for length, _ in utterances]
    left = [random_tokens(count) for _, count in utterances]
    heard: list[list[Tensor]] = [[] for _ in utterances]
    running = set(range(len(streams)))
    rounds = 0
    while running:
        rounds += 1
        if rounds == 20 and leaving in running and len(streams) > 1:
            running.remove(leaving)
        for number in list(running):
            if len(left[number]) and chooser.random() < 0.3:
                size = chooser.randint(1, len(left[number]))
                streams[number].feed(left[number][:size], last=size == len(left[number]))
                left[number] = left[number][size:]
        ready = [number for number in running if streams[number].begin() is not None]
        chosen = chooser.sample(ready, min(most, len(ready)))
        if chosen:
            for stream in STEPPER.step([streams[number] for number in chosen]):
                heard[streams.index(stream)].append(stream.finish())
        running -= {number for number in running if streams[number].done}
    for number, (length, count) in enumerate(utterances):
        if number != leaving or rounds < 20 or len(streams) == 1:
            expected = alone(length, random_tokens(count))
            assert (torch.cat(heard[number], dim=1) - expected).abs().max() <= 5e-5


@pytest.mark.parametrize("length", [0, 20, 28, 50, 53, 80])
def test_a_known_voice_sounds_like_a_new_one(length: int) -> None:
    prefix = STEPPER.prefix(*prompt(length))
    assert prefix.tokens == max(length - 3, 0) // 25 * 25
    for count in (10, 40):
        known = FlowSession(MODEL, *prompt(length), prefix).push(random_tokens(count), last=True)
        assert (known - alone(length, random_tokens(count))).abs().max() <= 5e-5


def test_utterances_of_one_voice_do_not_disturb_each_other_or_the_prefix() -> None:
    prefix = STEPPER.prefix(*prompt(60))
    before = prefix.nbytes
    first, second = (FlowStream(MODEL, *prompt(60), prefix) for _ in range(2))
    first.feed(random_tokens(33), last=True)
    second.feed(random_tokens(44), last=True)
    parts: dict[FlowStream, list[Tensor]] = {first: [], second: []}
    while not (first.done and second.done):
        ready = [stream for stream in (first, second) if stream.begin() is not None]
        for stream in STEPPER.step(ready):
            parts[stream].append(stream.finish())
    assert (torch.cat(parts[first], dim=1) - alone(60, random_tokens(33))).abs().max() <= 5e-5
    assert (torch.cat(parts[second], dim=1) - alone(60, random_tokens(44))).abs().max() <= 5e-5
    assert prefix.nbytes == before


def test_the_first_chunk_of_a_known_voice_costs_one_chunk() -> None:
    prefix = STEPPER.prefix(*prompt(50))
    calls: list[int] = []
    block = MODEL.network.decoder.estimator.final_block
    handle = block.register_forward_hook(lambda _m, _i, out: calls.append(out.shape[1]))
    session = FlowSession(MODEL, *prompt(50), prefix)
    assert session.tokens_needed == 25 + 3 + 0
    session.push(random_tokens(28), last=False)
    handle.remove()
    # 25 prompt tokens are in the prefix; the other 25 need look-ahead beyond the prompt
    assert calls == [50] * (2 * MODEL.config.ode_steps)


def test_prefixes_leave_least_recently_used_first() -> None:
    size = STEPPER.prefix(*prompt(30)).nbytes
    cache = PrefixCache(2 * size)
    made: list[str] = []

    def take(name: str) -> FlowPrefix:
        made.append(name)
        return STEPPER.prefix(*prompt(30))

    for name in ("a", "b", "a", "c", "a", "b"):
        if cache.get(name) is None:
            cache.put(name, lambda name=name: take(name))  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
    assert len(cache) == 2
    assert cache.nbytes == 2 * size


def test_a_prefix_beyond_the_budget_is_not_kept() -> None:
    cache = PrefixCache(10)
    cache.put("a", lambda: STEPPER.prefix(*prompt(30)))
    assert (len(cache), cache.nbytes) == (0, 0)


def test_a_stream_without_work_cannot_step() -> None:
    with pytest.raises(ValueError, match="without a chunk"):
        STEPPER.step([FlowStream(MODEL, *prompt(10))])
