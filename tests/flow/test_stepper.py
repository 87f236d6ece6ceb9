"""Streams that step together, share a voice's prefix and leave in any order sound as they do alone."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosyvoice_core.flow import FlowSession
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.masks import past_mask
from cosyvoice_core.flow.memory import FlowMemory, form_within, page_bytes
from cosyvoice_core.flow.prefix import FlowPrefix, PrefixCache
from cosyvoice_core.flow.runner import StepRunner
from cosyvoice_core.flow.stepper import FlowStepper
from cosyvoice_core.flow.stream import FlowStream
from tests.flow.test_session import MODEL, prompt, random_tokens


def stepper(pages: int = 40, form: CacheForm = CacheForm.KEYS_VALUES, slots: int = 0) -> FlowStepper:
    """With slots, of fixed shapes for as many streams and up to two pages of past."""
    # Two places for each slot and one for all are 19 to a page.
    spare = -(-(2 * slots + 1) // 19) if slots else 0
    memory = FlowMemory(MODEL, (pages + spare) * page_bytes(MODEL, form), form, slots=slots)
    assert memory.pages.count == pages
    return FlowStepper(MODEL, memory, StepRunner(MODEL, memory, (1, 2)) if slots else None)


STEPPER = stepper()


def open_stream(length: int, on: FlowStepper, prefix: FlowPrefix | None = None) -> FlowStream:
    return FlowStream(MODEL, on.memory, *prompt(length), prefix)


def prefix_of(length: int, on: FlowStepper) -> FlowPrefix:
    prefix = on.prefix(*prompt(length))
    assert prefix is not None
    return prefix


def alone(prompt_length: int, tokens: Tensor) -> Tensor:
    return FlowSession(MODEL, *prompt(prompt_length)).push(tokens, last=True)


@settings(max_examples=25)
@given(
    utterances=st.lists(st.tuples(st.sampled_from([0, 3, 25, 28, 40, 60]), st.integers(1, 90)), min_size=1, max_size=5),
    order=st.integers(0, 2**32),
    most=st.integers(1, 4),
    leaving=st.integers(0, 4),
    pages=st.integers(0, 12),
    form=st.sampled_from(CacheForm),
    slots=st.sampled_from([0, 1, 3]),
)
def test_any_interleaving_gives_each_stream_its_own_mel(
    utterances: list[tuple[int, int]], order: int, most: int, leaving: int, pages: int, form: CacheForm, slots: int
) -> None:
    """Tokens arrive at random, any subset steps at any time, caches are taken away, one stream leaves in the middle.

    With slots, steps have fixed shapes as far as chunks fit, filled up with nobody's.
    """
    chooser = random.Random(order)
    on = stepper(pages, form, slots)
    streams = [open_stream(length, on) for length, _ in utterances]
    left = [random_tokens(count) for _, count in utterances]
    heard: list[list[Tensor]] = [[] for _ in utterances]
    running = set(range(len(streams)))
    rounds = 0
    while running:
        rounds += 1
        if rounds == 20 and leaving in running and len(streams) > 1:
            running.remove(leaving)
            streams[leaving].close()
        for number in list(running):
            if len(left[number]) and chooser.random() < 0.3:
                size = chooser.randint(1, len(left[number]))
                streams[number].feed(left[number][:size], last=size == len(left[number]))
                left[number] = left[number][size:]
            if streams[number].chunk is None and chooser.random() < 0.05:
                streams[number].give_up_caches()
        ready = [number for number in running if streams[number].begin() is not None]
        chosen = chooser.sample(ready, min(most, len(ready)))
        if chosen:
            for stream in on.step([streams[number] for number in chosen]):
                heard[streams.index(stream)].append(stream.finish())
        for number in [number for number in running if streams[number].done]:
            running.remove(number)
            streams[number].close()
    for number, (length, count) in enumerate(utterances):
        if number != leaving or rounds < 20 or len(streams) == 1:
            expected = alone(length, random_tokens(count))
            assert (torch.cat(heard[number], dim=1) - expected).abs().max() <= 5e-5
    assert on.memory.pages.free == pages


@pytest.mark.parametrize("form", CacheForm)
def test_a_stream_that_lost_its_caches_is_incremental_again_when_there_is_room(form: CacheForm) -> None:
    on = stepper(8, form)
    prefix = prefix_of(53, on)
    stream = open_stream(53, on, prefix)
    tokens = random_tokens(130)
    seen: list[int] = []
    handle = MODEL.network.decoder.estimator.final_block.register_forward_hook(
        lambda _m, inputs, _out: seen.append(inputs[0].shape[1])
    )
    heard = []
    for first in range(0, 130, 26):
        if first == 52:
            stream.give_up_caches()
        stream.feed(tokens[first : first + 26], last=first == 104)
        while stream.begin() is not None:
            while not on.step([stream]):
                pass
            heard.append(stream.finish())
    handle.remove()
    assert (torch.cat(heard, dim=1) - alone(53, tokens)).abs().max() <= 5e-5
    # 50 prompt tokens are in the prefix; of the chunks behind it the third computes the first two again.
    assert max(seen) == 150
    assert seen.count(150) == MODEL.config.ode_steps
    stream.close()
    prefix.release()
    assert on.memory.pages.free == 8


def test_a_failed_step_leaves_streams_as_they_were() -> None:
    on = stepper()
    stream = open_stream(25, on)
    stream.feed(random_tokens(30), last=True)
    stream.begin()
    on.step([stream])
    block = MODEL.network.decoder.estimator.final_block

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = block.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        on.step([stream])
    handle.remove()
    heard = []
    while stream.begin() is not None:
        while not on.step([stream]):
            pass
        heard.append(stream.finish())
    assert (torch.cat(heard, dim=1) - alone(25, random_tokens(30))).abs().max() <= 5e-5


def test_left_chunks_bound_memory_and_do_not_depend_on_caches() -> None:
    """An approximation, but one and the same whether a stream is incremental or computes all frames again."""
    tokens = random_tokens(250)
    results, most = [], []
    for pages in (40, 0):
        on = stepper(pages)
        session = FlowSession(MODEL, *prompt(30), stepper=on, left_chunks=2)
        held, heard = [], []
        for first in range(0, 250, 25):
            heard.append(session.push(tokens[first : first + 25], last=first == 225))
            held.append(session.stream.own_pages)
        results.append(torch.cat(heard, dim=1))
        most.append(max(held))
    assert (results[0] - results[1]).abs().max() <= 5e-5
    # Two chunks hold the prompt, two are behind it and one is new.
    assert most == [5, 0]
    difference = (results[0] - alone(30, tokens)).abs()
    assert difference[:, :90].max() <= 5e-5
    assert difference.max() > 1e-3


def test_left_chunks_mask_shows_the_prompt_and_the_latest() -> None:
    mask = past_mask(0, 12, 2, torch.device("cpu"), left_chunks=1, always=1)
    assert mask is not None
    shown = [[chunk for chunk in range(6) if row[2 * chunk]] for row in mask[::2]]
    assert shown == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]
    assert past_mask(4, 6, 2, torch.device("cpu"), left_chunks=None, always=0) is None


def test_a_budget_decides_the_form() -> None:
    full, compact = (page_bytes(MODEL, form) for form in CacheForm)
    assert compact < full
    assert form_within(MODEL, 3 * full, 150) is CacheForm.KEYS_VALUES
    assert form_within(MODEL, 3 * full - 1, 150) is CacheForm.INPUTS


@pytest.mark.parametrize("form", CacheForm)
def test_memory_stays_within_its_budget(form: CacheForm) -> None:
    memory = FlowMemory(MODEL, 10 * page_bytes(MODEL, form) + 5, form)
    assert memory.pages.count == 10
    assert memory.nbytes <= 10 * page_bytes(MODEL, form)


@pytest.mark.parametrize("length", [0, 20, 28, 50, 53, 80])
def test_a_known_voice_sounds_like_a_new_one(length: int) -> None:
    prefix = prefix_of(length, STEPPER)
    assert prefix.tokens == max(length - 3, 0) // 25 * 25
    for count in (10, 40):
        session = FlowSession(MODEL, *prompt(length), prefix, stepper=STEPPER)
        known = session.push(random_tokens(count), last=True)
        session.close()
        assert (known - alone(length, random_tokens(count))).abs().max() <= 5e-5
    prefix.release()
    assert STEPPER.memory.pages.free == STEPPER.memory.pages.count


def test_utterances_of_one_voice_do_not_disturb_each_other_or_the_prefix() -> None:
    on = stepper()
    prefix = prefix_of(60, on)
    first, second = (open_stream(60, on, prefix) for _ in range(2))
    first.feed(random_tokens(33), last=True)
    second.feed(random_tokens(44), last=True)
    parts: dict[FlowStream, list[Tensor]] = {first: [], second: []}
    while not (first.done and second.done):
        ready = [stream for stream in (first, second) if stream.begin() is not None]
        for stream in on.step(ready):
            parts[stream].append(stream.finish())
    assert (torch.cat(parts[first], dim=1) - alone(60, random_tokens(33))).abs().max() <= 5e-5
    assert (torch.cat(parts[second], dim=1) - alone(60, random_tokens(44))).abs().max() <= 5e-5
    third = open_stream(60, on, prefix)
    third.feed(random_tokens(21), last=True)
    third.begin()
    while not on.step([third]):
        pass
    assert (third.finish() - alone(60, random_tokens(21))[:, :30]).abs().max() <= 5e-5


def test_a_voice_may_go_while_its_utterance_lasts() -> None:
    on = stepper(3)
    prefix = prefix_of(60, on)
    session = FlowSession(MODEL, *prompt(60), prefix, stepper=on)
    prefix.release()
    assert on.memory.pages.free == 1
    mel = session.push(random_tokens(70), last=True)
    assert (mel - alone(60, random_tokens(70))).abs().max() <= 5e-5
    session.close()
    assert on.memory.pages.free == 3


def test_the_first_chunk_of_a_known_voice_costs_one_chunk() -> None:
    """With a prompt that is aligned so that its end and its look-ahead share a chunk with the first speech."""
    on = stepper()
    prefix = prefix_of(60, on)
    calls: list[tuple[int, int]] = []
    block = MODEL.network.decoder.estimator.final_block
    session = FlowSession(MODEL, *prompt(60), prefix, stepper=on)
    assert session.tokens_needed == 15 + 3
    handle = block.register_forward_hook(lambda _m, _i, out: calls.append((out.shape[0], out.shape[1])))
    session.push(random_tokens(18), last=False)
    handle.remove()
    # The first step's unconditional row is new to this stepper, too: no stream has come so far yet.
    assert sorted(calls) == [(1, 50), (1, 50)] + [(2, 50)] * (MODEL.config.ode_steps - 1)


def test_prefixes_leave_least_recently_used_first() -> None:
    on = stepper()
    size = prefix_of(30, on).nbytes
    cache = PrefixCache(2 * size)
    made: list[str] = []
    for name in ("a", "b", "a", "c", "a", "b"):
        if cache.get(name) is None:
            made.append(name)
            cache.put(name, prefix_of(30, on))
    assert made == ["a", "b", "c", "b"]
    assert len(cache) == 2
    assert cache.nbytes == 2 * size
    assert cache.drop_oldest()
    assert cache.drop_oldest()
    assert not cache.drop_oldest()
    assert cache.nbytes == 0


def test_a_prefix_beyond_the_budget_is_not_kept() -> None:
    on = stepper()
    cache = PrefixCache(10)
    cache.put("a", prefix_of(30, on))
    assert (len(cache), cache.nbytes) == (0, 0)
    assert on.memory.pages.free == on.memory.pages.count


def test_a_stream_without_work_cannot_step() -> None:
    with pytest.raises(ValueError, match="without a chunk"):
        STEPPER.step([open_stream(10, STEPPER)])
