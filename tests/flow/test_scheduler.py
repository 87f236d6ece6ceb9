"""The scheduler: urgent first, memory never exceeded, each stream's mel its own whatever happens to the others."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.load import FlowLoad
from cosyvoice_core.flow.memory import FlowMemory, page_bytes
from cosyvoice_core.flow.runner import StepRunner
from cosyvoice_core.flow.scheduler import Due, FlowScheduler, FlowVoice, Outcome, Push, SchedulerLimits
from cosyvoice_core.flow.stream import FlowStream
from tests.flow.test_session import MODEL, prompt, random_tokens
from tests.flow.test_stepper import alone


def scheduler(
    pages: int = 40,
    batch: int = 4,
    prefix_pages: int = 0,
    form: CacheForm = CacheForm.KEYS_VALUES,
    patience_s: float = 3.0,
    slots: int = 0,
) -> FlowScheduler:
    """With slots, steps have fixed shapes for pasts of up to two pages."""
    size = page_bytes(MODEL, form)
    memory = FlowMemory(MODEL, (pages + (slots > 0)) * size, form, slots=slots)
    return FlowScheduler(
        MODEL,
        memory,
        SchedulerLimits(batch=batch, patience_s=patience_s),
        # Tails come on top of the pages of a prefix.
        prefix_bytes=2 * prefix_pages * size,
        runner=StepRunner(MODEL, memory, (1, 2)) if slots else None,
    )


def voice(length: int) -> FlowVoice:
    return FlowVoice(length, *prompt(length))


def open_stream(
    on: FlowScheduler, length: int, due: Callable[[], Due] = lambda: (0, 0.0), left_s: float = 0.0
) -> FlowStream:
    return on.open(voice(length), due, lambda: left_s)


def run(on: FlowScheduler, pushes: list[Push]) -> list[Outcome]:
    """All outcomes until every push has ended, in order."""
    outcomes: list[Outcome] = []
    while pushes:
        step = on.step(pushes)
        outcomes += step
        pushes = [push for push in pushes if not any(done.push is push and done.ended for done in step)]
    return outcomes


def mel_of(outcomes: list[Outcome], stream: FlowStream) -> Tensor:
    pieces = [done.result for done in outcomes if done.push.stream is stream and isinstance(done.result, Tensor)]
    return torch.cat(pieces, dim=1)


@settings(max_examples=20)
@given(
    utterances=st.lists(st.tuples(st.sampled_from([0, 25, 28, 60]), st.integers(1, 90)), min_size=1, max_size=6),
    order=st.integers(0, 2**32),
    pages=st.integers(0, 10),
    prefix_pages=st.integers(0, 4),
    batch=st.integers(1, 4),
    form=st.sampled_from(CacheForm),
    fixed=st.booleans(),
)
def test_memory_of_any_size_and_any_order_change_no_mel(
    utterances: list[tuple[int, int]],
    order: int,
    pages: int,
    prefix_pages: int,
    batch: int,
    form: CacheForm,
    fixed: bool,
) -> None:
    """Streams open, are pushed, are cancelled and closed at random while voices come and go and pages run out."""
    chooser = random.Random(order)
    on = scheduler(pages, batch, prefix_pages, form, slots=batch if fixed else 0)
    dues = [(chooser.randint(0, 1), chooser.random()) for _ in utterances]
    lefts = [chooser.choice([0.0, 10.0]) for _ in utterances]
    waiting = list(range(len(utterances)))
    streams: dict[int, FlowStream] = {}
    tokens = [random_tokens(count) for _, count in utterances]
    heard: dict[int, list[Tensor]] = {number: [] for number in waiting}
    pushes: dict[int, Push] = {}
    cancelled = chooser.choice([None, *waiting])
    while waiting or streams:
        if waiting and chooser.random() < 0.5:
            number = waiting.pop()
            streams[number] = on.open(
                voice(utterances[number][0]), lambda number=number: dues[number], lambda number=number: lefts[number]
            )
            pushes[number] = Push(streams[number], (), False)
        for number, stream in list(streams.items()):
            if number == cancelled and chooser.random() < 0.1:
                on.close(stream)
                del streams[number]
                pushes.pop(number, None)
            elif number not in pushes:
                if stream.done:
                    on.close(stream)
                    del streams[number]
                else:
                    size = chooser.randint(1, len(tokens[number]))
                    last = size == len(tokens[number])
                    pushes[number] = Push(stream, tokens[number][:size].tolist(), last)
                    tokens[number] = tokens[number][size:]
        for outcome in on.step(list(pushes.values())):
            number = next(number for number, push in pushes.items() if push is outcome.push)
            if isinstance(outcome.result, Tensor):
                heard[number].append(outcome.result)
            else:
                assert outcome.result is None
                first = not pushes.pop(number).tokens
                if first:
                    on.remember(streams[number])
    for number, (length, count) in enumerate(utterances):
        if number != cancelled:
            expected = alone(length, random_tokens(count))
            assert (torch.cat(heard[number], dim=1) - expected).abs().max() <= 5e-5
    while on.prefixes.drop_oldest():
        pass
    assert (on.memory.pages.free, on.open_streams) == (pages, 0)


def test_who_has_heard_nothing_passes_who_is_ahead() -> None:
    on = scheduler(batch=1)
    ahead = open_stream(on, 0, lambda: (1, 60.0))
    new = open_stream(on, 0, lambda: (0, 5.0))
    pushes = [Push(ahead, random_tokens(30).tolist(), True), Push(new, random_tokens(30).tolist(), True)]
    order = [done.push.stream for done in run(on, pushes) if isinstance(done.result, Tensor)]
    assert order == [new, new, ahead, ahead]


def test_a_short_chunk_does_not_pad_a_call_beyond_the_limit() -> None:
    on = scheduler(batch=2)
    whole, rest = open_stream(on, 0), open_stream(on, 0, lambda: (0, 1.0))
    rows: list[int] = []
    handle = MODEL.network.decoder.estimator.up_blocks[0][0].register_forward_hook(
        lambda _m, inputs, _out: rows.append(inputs[0].shape[0])
    )
    run(on, [Push(whole, random_tokens(25).tolist(), True), Push(rest, random_tokens(3).tolist(), True)])
    handle.remove()
    assert max(rows) == 2


def test_in_fixed_shapes_a_short_chunk_pads_no_call() -> None:
    """It takes as many frames as any other, so that a call of its own would cost more."""
    on = scheduler(batch=2, slots=2)
    whole, rest = open_stream(on, 0), open_stream(on, 0, lambda: (0, 1.0))
    on.step([Push(whole, random_tokens(25).tolist(), True), Push(rest, random_tokens(3).tolist(), True)])
    assert on.load.stepped == 2


def test_memory_comes_from_voices_first_and_then_from_who_is_due_last() -> None:
    on = scheduler(pages=4, prefix_pages=2)
    assert on.warm(voice(53))
    assert on.memory.pages.free == 2
    late = open_stream(on, 0, lambda: (1, 50.0))
    soon = open_stream(on, 0, lambda: (1, 5.0))
    run(on, [Push(late, random_tokens(53).tolist(), False)])
    assert (late.own_pages, len(on.prefixes)) == (2, 1)
    run(on, [Push(soon, random_tokens(78).tolist(), False)])
    # The voice's two pages were not enough: the stream that is due later gave its own, all of them.
    assert (soon.own_pages, late.own_pages, len(on.prefixes)) == (3, 0, 0)
    outcomes = run(on, [Push(late, random_tokens(7).tolist(), True)])
    assert late.done
    expected = alone(0, torch.cat((random_tokens(53), random_tokens(7))))
    assert (mel_of(outcomes, late) - expected[:, 100:]).abs().max() <= 5e-5


def test_a_listener_with_enough_to_hear_waits_for_memory_while_others_work() -> None:
    on = scheduler(pages=2)
    urgent = open_stream(on, 0, lambda: (0, 0.0))
    patient = open_stream(on, 0, lambda: (1, 60.0), left_s=30.0)
    hurried = open_stream(on, 0, lambda: (1, 50.0), left_s=1.0)
    pushes = [
        Push(urgent, random_tokens(60).tolist(), True),
        Push(patient, random_tokens(60).tolist(), True),
        Push(hurried, random_tokens(60).tolist(), True),
    ]
    while not urgent.done:
        on.step([push for push in pushes if not push.stream.done])
    assert patient.done_tokens == 0
    assert hurried.done_tokens > 0
    on.close(urgent)
    outcomes = run(on, [push for push in pushes if not push.stream.done])
    assert (mel_of(outcomes, patient) - alone(0, random_tokens(60))).abs().max() <= 5e-5


def test_waiting_for_each_other_ends() -> None:
    """No stream can have a page, all have enough to hear, and still something goes on in every step."""
    on = scheduler(pages=1)
    streams = [open_stream(on, 0, lambda: (1, 60.0), left_s=100.0) for _ in range(2)]
    outcomes = run(on, [Push(stream, random_tokens(90).tolist(), True) for stream in streams])
    for stream in streams:
        assert (mel_of(outcomes, stream) - alone(0, random_tokens(90))).abs().max() <= 5e-5


def test_a_failing_call_is_repeated_one_by_one_and_only_the_culprit_fails() -> None:
    on = scheduler()
    good, bad = open_stream(on, 25), open_stream(on, 25)
    block = MODEL.network.decoder.estimator.final_block

    def fail(_module: object, inputs: tuple[Tensor, ...]) -> None:
        if bad.chunk is not None and torch.is_tensor(inputs[0]) and bad.chunk.step == 4 and blamed():
            raise RuntimeError("device-side assertion")

    def blamed() -> bool:
        return stepping == [bad] or len(stepping) == 2

    stepping: list[FlowStream] = []
    advance = on._stepper.step

    def step(streams: list[FlowStream]) -> list[FlowStream]:
        stepping[:] = streams
        return advance(streams)

    on._stepper.step = step  # type: ignore[method-assign,assignment]
    handle = block.register_forward_pre_hook(fail)
    tokens = random_tokens(40).tolist()
    outcomes = run(on, [Push(good, tokens, True), Push(bad, tokens, True)])
    handle.remove()
    errors = [done for done in outcomes if isinstance(done.result, Exception)]
    assert [(done.push.stream, type(done.result)) for done in errors] == [(bad, EngineError)]
    assert "device-side assertion" in str(errors[0].result)
    assert (mel_of(outcomes, good) - alone(25, random_tokens(40))).abs().max() <= 5e-5


def test_not_a_number_and_too_long_a_text_fail_alone() -> None:
    on = scheduler()
    tokens, mel, speaker = prompt(25)
    mel[3, 3] = torch.nan
    broken = on.open(FlowVoice("broken", tokens, mel, speaker), lambda: (0, 0.0), lambda: 0.0)
    long, good = open_stream(on, 0), open_stream(on, 28)
    outcomes = run(
        on,
        [
            Push(broken, random_tokens(30).tolist(), True),
            Push(long, [0] * 7501, True),
            Push(good, random_tokens(61).tolist(), True),
        ],
    )
    errors = {done.push.stream: type(done.result) for done in outcomes if isinstance(done.result, Exception)}
    assert errors == {broken: EngineError, long: InputError}
    assert (mel_of(outcomes, good) - alone(28, random_tokens(61))).abs().max() <= 5e-5


def test_a_warm_voice_costs_its_utterances_no_prompt_chunk() -> None:
    on = scheduler(prefix_pages=4)
    assert on.warm(voice(60))
    stream = open_stream(on, 60)
    assert stream.done_tokens == 50
    assert not scheduler(pages=1, prefix_pages=4).warm(voice(60))


@pytest.mark.parametrize("slots", [0, 3])
@pytest.mark.parametrize("pages", [0, 9])
def test_warming_up_knows_first_steps_and_leaves_nothing_behind(pages: int, slots: int) -> None:
    on = scheduler(pages, batch=3, prefix_pages=4, slots=slots)
    rows: list[int] = []
    block = MODEL.network.decoder.estimator.final_block
    handle = block.register_forward_hook(lambda _m, inputs, _out: rows.append(inputs[0].shape[0]))
    on.warm_up(4)
    assert max(rows) == 6
    assert on.load == FlowLoad(0, 0, 0, pages, 0, recomputed=0, prefix_hits=0, prefix_misses=0)
    assert len(on.prefixes) == 0
    rows.clear()
    stream = open_stream(on, 25)
    outcomes = run(on, [Push(stream, random_tokens(75).tolist(), True)])
    handle.remove()
    # Ten calls for each of four chunks, and none more for the unconditional velocity of their first steps.
    assert len(rows) == 4 * MODEL.config.ode_steps
    assert (mel_of(outcomes, stream) - alone(25, random_tokens(75))).abs().max() <= 5e-5


def test_no_warm_up_computes_nothing() -> None:
    on = scheduler()
    block = MODEL.network.decoder.estimator.final_block
    calls: list[int] = []
    handle = block.register_forward_hook(lambda _m, _i, _o: calls.append(1))
    on.warm_up(0)
    handle.remove()
    assert calls == []


def test_the_load_tells_who_steps_who_waits_and_what_memory_cost() -> None:
    on = scheduler(pages=3, batch=1, prefix_pages=2)
    assert on.warm(voice(53))
    size = on.memory.page_bytes
    assert on.load == FlowLoad(
        0, 0, 0, free_pages=1, cache_bytes=2 * size, recomputed=0, prefix_hits=0, prefix_misses=0
    )
    streams = [open_stream(on, length, lambda length=length: (0, float(length))) for length in (0, 27, 28, 53)]
    # Of the four prompts the first two have no chunk to share, and the last is known.
    assert (on.load.open, on.load.prefix_hits, on.load.prefix_misses) == (4, 1, 1)
    on.close(streams[1])
    on.close(streams[2])
    pushes = [Push(streams[0], random_tokens(60).tolist(), True), Push(streams[3], random_tokens(60).tolist(), True)]
    on.step(pushes)
    assert (on.load.stepped, on.load.waiting, on.load.recomputed) == (1, 1, 0)
    assert (on.load.free_pages, on.load.cache_bytes) == (0, 3 * size)
    run(on, pushes)
    # The first stream needs a second page and takes the voice's: but those are still read by the other.
    assert on.load.recomputed > 0
    for stream in streams:
        on.close(stream)
    assert (on.load.open, on.load.waiting, on.load.free_pages, on.load.cache_bytes) == (0, 0, 3, 0)


@pytest.mark.parametrize(("field", "value"), [("batch", 0), ("padding", 0.5)])
def test_limits_that_make_no_sense_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        SchedulerLimits(**{field: value})  # type: ignore[arg-type]


def test_a_push_that_outlives_its_stream_fails_alone_and_takes_no_memory() -> None:
    on = scheduler(pages=9, batch=2)
    left, stays = open_stream(on, 0), open_stream(on, 0)
    pushes = [Push(left, random_tokens(60).tolist(), True), Push(stays, random_tokens(60).tolist(), True)]
    on.step(pushes)
    on.close(left)
    (closed,) = [outcome for outcome in on.step(pushes) if outcome.push is pushes[0]]
    assert isinstance(closed.result, EngineError)
    assert (mel_of(run(on, pushes[1:]), stays) - alone(0, random_tokens(60))).abs().max() <= 5e-5
    on.close(stays)
    assert on.memory.pages.free == 9
