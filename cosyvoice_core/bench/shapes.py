"""What steps of fixed shape cost by count: operations that a device is asked for, and arithmetic on padding.

Runs nothing: the flow lies on a device without memory, at official dims, so that this takes seconds and says the same
on every machine. Knows no times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cosyvoice_core.bench.counts import FlowCounts
from cosyvoice_core.config import FlowConfig
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.fixed import StepInputs, StepShape, fixed_step
from cosyvoice_core.flow.memory import FlowMemory, page_bytes
from cosyvoice_core.flow.model import FlowModel, FlowNetwork
from cosyvoice_core.flow.runner import DEFAULT_PAGES, StepRunner
from cosyvoice_core.flow.stepper import FlowStepper
from cosyvoice_core.flow.stream import FlowStream
from cosyvoice_core.recording import batch_sizes

_PAST = 3, 33
"""Pages before a chunk of an utterance of up to 30 s behind a prompt of 3 s, the upper bound excluded."""
_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class StepCost:
    """Of one Euler step for so many streams. asked: operations as streams are; asked_fixed: with fixed shapes, of
    which a graph replays all but asked_around; padded: see `padded_share`."""

    streams: int
    asked: int
    asked_fixed: int
    asked_around: int
    padded: float


def step_costs(config: FlowConfig, most: int, seed: int) -> list[StepCost]:
    """For 1, 2, 4 ... `most` streams in full caches."""
    with torch.device("meta"):
        network = FlowNetwork(config)
    model = FlowModel(network, config)
    costs = []
    for streams in batch_sizes(most):
        asked = _asked(model, streams, slots=0)
        whole, inside = _asked(model, streams, slots=streams), _asked_inside(model, streams)
        costs.append(StepCost(streams, asked, whole, whole - inside, padded_share(model, streams, most, seed)))
    return costs


def padded_share(model: FlowModel, streams: int, most: int, seed: int) -> float:
    """Arithmetic of fixed shapes over that of the chunks in them; pasts even chances from 3 to 32 pages.

    most: streams that there are slots for.
    """
    counts, frames = FlowCounts.of(model), model.config.chunk_frames
    generator = torch.Generator().manual_seed(seed)
    slots = next(size for size in batch_sizes(most) if size >= streams)
    needed = padded = 0.0
    # In one step of ten the unconditional row is known already.
    rows = 1 - 1 / (2 * model.config.ode_steps)
    for _ in range(_DRAWS):
        pasts = torch.randint(*_PAST, (streams,), generator=generator).tolist()
        needed += sum(rows * counts.chunk(frames, past * frames) for past in pasts)
        longest = next((pages for pages in DEFAULT_PAGES if pages >= max(pasts)), max(pasts))
        padded += slots * counts.chunk(frames, longest * frames)
    return padded / needed


def cost_record(costs: list[StepCost]) -> list[dict[str, object]]:
    return [asdict(cost) for cost in costs]


def shapes_table(costs: list[StepCost]) -> Iterator[str]:
    """Lines for people."""
    yield "an Euler step: operations a device is asked for (views left out), and arithmetic over that without padding"
    yield f"{'streams':>9}{'as they are':>13}{'fixed':>9}{'of it around a graph':>22}{'arithmetic':>12}"
    for cost in costs:
        yield (f"{cost.streams:>9}{cost.asked:>13}{cost.asked_fixed:>9}{cost.asked_around:>22}{cost.padded:>12.2f}")


def _streams(model: FlowModel, streams: int, slots: int) -> tuple[FlowStepper, list[FlowStream]]:
    """Streams before the second step of a chunk, the first that has both rows; a past of one run adds nothing."""
    memory = FlowMemory(model, (streams + 4) * page_bytes(model, CacheForm.KEYS_VALUES), slots=slots)
    stepper = FlowStepper(model, memory, StepRunner(model, memory) if slots else None)
    nothing = torch.zeros((0, model.config.mel_bins))
    opened = [
        FlowStream(model, memory, torch.zeros(0, dtype=torch.long), nothing, torch.ones(model.config.speaker_dim))
        for _ in range(streams)
    ]
    for stream in opened:
        stream.feed([1] * (2 * model.config.chunk_tokens), last=True)
        stream.begin()
    stepper.step(opened)
    return stepper, opened


def _asked(model: FlowModel, streams: int, slots: int) -> int:
    stepper, opened = _streams(model, streams, slots)
    with _Asked() as asked:
        stepper.step(opened)
    return int(asked.count)


def _asked_inside(model: FlowModel, streams: int) -> int:
    """Of a step of fixed shape, what a graph holds."""
    memory = FlowMemory(model, 4 * page_bytes(model, CacheForm.KEYS_VALUES), slots=streams)
    shape = StepShape(streams, DEFAULT_PAGES[0])
    with torch.inference_mode():
        blank = StepInputs.blank(model, memory, shape)
        with _Asked() as asked:
            fixed_step(model, memory, shape, blank)
    return int(asked.count)


class _Asked(TorchDispatchMode):
    """Counts operations whose result is new memory, or written in place; a view is no work."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: int = 0

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        aliases = [argument.alias_info for argument in func._schema.arguments if argument.alias_info is not None]
        self.count += all(alias.is_write for alias in aliases)
        return result
