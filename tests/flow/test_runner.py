"""Steps of fixed shapes: the same mel, none of it from padding, nothing that waits for the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cosyvoice_core.errors import EngineError
from cosyvoice_core.flow import FlowModel
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.fixed import StepInputs, StepShape, fixed_step
from cosyvoice_core.flow.memory import FlowMemory, page_bytes
from cosyvoice_core.flow.runner import StepRunner
from cosyvoice_core.flow.stepper import FlowStepper
from cosyvoice_core.flow.stream import FlowStream
from cosyvoice_core.recording import FixedWork, batch_sizes
from tests.flow.test_session import MODEL, SMALL, prompt, random_tokens
from tests.flow.test_stepper import alone


def memory_of(pages: int, slots: int, form: CacheForm = CacheForm.KEYS_VALUES, model: FlowModel = MODEL) -> FlowMemory:
    return FlowMemory(model, pages * page_bytes(model, form), form, slots=slots)


def spoken(on: FlowStepper, utterances: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Mel of (prompt, tokens) streams that step together."""
    streams = [FlowStream(MODEL, on.memory, *prompt(length)) for length, _ in utterances]
    heard: list[list[Tensor]] = [[] for _ in streams]
    for stream, (_, count) in zip(streams, utterances, strict=True):
        stream.feed(random_tokens(count), last=True)
    while ready := [stream for stream in streams if stream.begin() is not None]:
        for stream in on.step(ready):
            heard[streams.index(stream)].append(stream.finish())
    for stream in streams:
        stream.close()
    return [torch.cat(pieces, dim=1) for pieces in heard]


@pytest.mark.parametrize("form", CacheForm)
def test_streams_of_all_lengths_in_fixed_shapes_sound_as_alone(form: CacheForm) -> None:
    """Of the calls only those are of other shapes whose past is longer than the longest, and unguided first steps."""
    memory = memory_of(30, 4, form)
    on = FlowStepper(MODEL, memory, StepRunner(MODEL, memory, (1, 2, 4)))
    seen: set[tuple[int, int]] = set()
    handle = MODEL.network.decoder.estimator.final_block.register_forward_hook(
        lambda _m, inputs, _out: seen.add((inputs[0].shape[0], inputs[0].shape[1]))
    )
    utterances = [(0, 7), (25, 61), (60, 90)]
    heard = spoken(on, utterances)
    handle.remove()
    for mel, (length, count) in zip(heard, utterances, strict=True):
        assert (mel - alone(length, random_tokens(count))).abs().max() <= 5e-5
    # Up to six chunks: the last has five pages of past. Both rows always, and as many slots as powers of two.
    assert seen - {(1, frames) for frames in range(51)} == {(8, 50), (4, 50), (2, 50)}


def test_after_warming_up_no_step_has_a_new_shape() -> None:
    memory = memory_of(30, 4)
    runner = StepRunner(MODEL, memory, (2, 8))
    assert runner.warm_up() == 3 * 2
    shapes: set[tuple[int, ...]] = set()
    on = FlowStepper(MODEL, memory, runner)
    block = MODEL.network.decoder.estimator.final_block
    handle = block.register_forward_hook(lambda _m, inputs, _out: shapes.add(tuple(inputs[0].shape)))
    ready = set(runner._ready)
    for count in (1, 2, 3, 4):
        spoken(on, [(28, 30 + 40 * number) for number in range(count)])
    handle.remove()
    assert set(runner._ready) == ready == set(runner.shapes())
    assert {rows for rows, *_ in shapes} == {1, 2, 4, 8}


def test_outputs_are_overwritten_by_the_next_run_as_those_of_a_graph_are() -> None:
    given = torch.zeros(3)
    work = FixedWork((given,), lambda: (given * 2,))
    (first,) = work.run((torch.ones(3),))
    assert first.tolist() == [2, 2, 2]
    (second,) = work.run((torch.full((3,), 4.0),))
    assert second is first
    assert first.tolist() == [8, 8, 8]


def test_a_broken_stream_does_not_reach_those_beside_it_or_after_it() -> None:
    memory = memory_of(12, 4)
    on = FlowStepper(MODEL, memory, StepRunner(MODEL, memory, (4,)))
    tokens, mel, speaker = prompt(25)
    mel[3, 3] = torch.nan
    broken = FlowStream(MODEL, memory, tokens, mel, speaker)
    good = FlowStream(MODEL, memory, *prompt(28))
    broken.feed(random_tokens(10), last=True)
    good.feed(random_tokens(61), last=True)
    heard, failed = [], False
    while ready := [stream for stream in (broken, good) if stream.begin() is not None]:
        for stream in on.step(ready):
            try:
                heard.append(stream.finish())
            except EngineError:
                assert stream is broken
                failed = True
    assert failed
    expected = alone(28, random_tokens(61))
    assert (torch.cat([piece for piece in heard if piece.isfinite().all()], dim=1) - expected).abs().max() <= 5e-5
    broken.close()
    good.close()
    # Its places and pages hold what is not a number; those who come into them do not see it.
    assert (spoken(on, [(25, 40), (0, 20)])[0] - alone(25, random_tokens(40))).abs().max() <= 5e-5


def test_a_failed_step_leaves_streams_as_they_were() -> None:
    """A recomputing chunk fails after the call of fixed shape beside it has succeeded."""
    memory = memory_of(6, 4)
    on = FlowStepper(MODEL, memory, StepRunner(MODEL, memory, (4,)))
    fits, recomputes = (FlowStream(MODEL, memory, *prompt(25)) for _ in range(2))
    fits.feed(random_tokens(30), last=True)
    recomputes.feed(random_tokens(30), last=False)
    recomputes.begin()
    while not on.step([recomputes]):
        pass
    recomputes.finish()
    recomputes.give_up_caches()
    recomputes.feed(random_tokens(25), last=True)
    fits.begin()
    chunk = recomputes.begin()
    assert chunk is not None
    assert chunk.frames > 50
    block = MODEL.network.decoder.estimator.final_block

    def fail(_module: object, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[1] > 50:
            raise RuntimeError("out of memory")

    handle = block.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        on.step([fits, recomputes])
    handle.remove()
    heard: dict[FlowStream, list[Tensor]] = {fits: [], recomputes: []}
    while ready := [stream for stream in heard if stream.begin() is not None]:
        for stream in on.step(ready):
            heard[stream].append(stream.finish())
    assert (torch.cat(heard[fits], dim=1) - alone(25, random_tokens(30))).abs().max() <= 5e-5
    expected = alone(25, torch.cat((random_tokens(30), random_tokens(25))))
    assert (torch.cat(heard[recomputes], dim=1) - expected).abs().max() <= 5e-5


class Counter(TorchDispatchMode):
    """How many operations torch was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple[object, ...] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        self.count += 1
        return func(*args, **(kwargs or {}))  # type: ignore[operator]


def test_a_step_of_many_streams_is_as_many_operations_as_one_of_one() -> None:
    memory = memory_of(12, 8)
    counts = []
    for slots, pages in ((1, 1), (8, 1), (8, 9)):
        shape = StepShape(slots, pages)
        with torch.inference_mode(), Counter() as counter:
            fixed_step(MODEL, memory, shape, StepInputs.blank(MODEL, memory, shape))
        counts.append(counter.count)
    assert counts[0] == counts[1] == counts[2]


class NothingWaits(TorchDispatchMode):
    """Refuses copies from the host that wait until the device has done what it was asked before."""

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple[object, ...] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        schema = func._schema  # type: ignore[attr-defined]
        given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | dict(kwargs or {})
        result = func(*args, **(kwargs or {}))  # type: ignore[operator]
        # Without gradients `to` comes here as it was written.
        if schema.name in ("aten::to", "aten::_to_copy", "aten::copy_"):
            source = given.get("src", given["self"])
            assert source.device == result.device or given.get("non_blocking"), "a copy to the device that waits"
        return result


@pytest.mark.parametrize("inference", [False, True])
def test_a_copy_that_waits_is_noticed(inference: bool) -> None:
    value = torch.zeros(3)
    room = torch.zeros(3, device="meta")
    with torch.inference_mode(inference), NothingWaits():
        value.to("meta", non_blocking=True)
        room.copy_(value, non_blocking=True)
        with pytest.raises(AssertionError, match="waits"):
            value.to("meta")
        with pytest.raises(AssertionError, match="waits"):
            room.copy_(value)


@pytest.mark.parametrize("slots", [0, 2])
@pytest.mark.parametrize("form", CacheForm)
def test_no_step_waits_for_the_device(slots: int, form: CacheForm) -> None:
    """On a device without memory nothing can be read back: a value, a branch on one, a copy to the host would raise.

    So would a table or noise that lies on the host. Encoder and steps of several chunks, a voice's prompt included.
    """
    model = FlowModel.from_state(MODEL.network.state_dict(), SMALL, device="meta")
    memory = memory_of(12, slots, form, model)
    runner = StepRunner(model, memory, (1, 4)) if slots else None
    if runner is not None:
        runner.warm_up()
    on = FlowStepper(model, memory, runner)
    done = 0
    with NothingWaits():
        streams = [FlowStream(model, memory, *prompt(length)) for length in (0, 28)]
        for number, stream in enumerate(streams):
            stream.feed(random_tokens(60 + number), last=True)
        while ready := [stream for stream in streams if stream.begin() is not None]:
            for stream in on.step(ready):
                chunk = stream.complete()
                assert chunk.x.device.type == "meta"
                done += 1
    assert done == 3 + 4
    with pytest.raises((RuntimeError, NotImplementedError)):
        chunk.x.cpu()


@pytest.mark.parametrize("slots", [1, 3, 4, 9])
def test_places_of_slots_are_nobodys_pages(slots: int) -> None:
    memory = memory_of(5, slots)
    assert memory.nbytes <= 5 * page_bytes(MODEL, CacheForm.KEYS_VALUES)
    pages = {memory.place(step, row, page) for step in range(10) for row in range(1 + (step > 0)) for page in
             range(memory.pages.count)}  # fmt: skip
    scratch = {memory.scratch(slot, row) for slot in range(slots) for row in range(2)}
    assert len(pages) == 19 * memory.pages.count
    assert len(scratch) == 2 * slots
    assert not pages & scratch
    assert memory.blank not in pages | scratch


def test_what_nobody_writes_stays_zero() -> None:
    memory = memory_of(8, 2)
    on = FlowStepper(MODEL, memory, StepRunner(MODEL, memory, (4,)))
    spoken(on, [(25, 61), (28, 30)])
    heads = memory.kept_shape[1]
    for layer in range(MODEL.network.decoder.estimator.attention_layers):
        units = memory.units(layer)
        for head in range(heads):
            assert not units[:, memory.blank + head * memory.heads_apart].any()


def test_shapes_cover_all_streams_and_pasts() -> None:
    runner = StepRunner(MODEL, memory_of(4, 6), (2, 5))
    assert runner.shapes() == [StepShape(slots, pages) for slots in (1, 2, 4, 6) for pages in (2, 5)]
    assert batch_sizes(16) == [1, 2, 4, 8, 16]


def test_what_cannot_run_is_refused() -> None:
    memory = memory_of(4, 2)
    with pytest.raises(ValueError, match="CUDA"):
        StepRunner(MODEL, memory, record=True)
    with pytest.raises(ValueError, match="growing"):
        StepRunner(MODEL, memory, (4, 2))
    with pytest.raises(ValueError, match="slots"):
        StepRunner(MODEL, memory_of(4, 0))
    with pytest.raises(ValueError, match="budget"):
        memory_of(0, 2)
    with pytest.raises(ValueError, match="CUDA"):
        FixedWork((torch.zeros(1),), lambda: (torch.zeros(1),), record=True)
    with pytest.raises(ValueError, match="1 row"):
        batch_sizes(0)
