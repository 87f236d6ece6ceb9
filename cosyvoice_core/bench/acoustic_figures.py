"""Figures of the acoustic bench: what was measured, what follows from it, and a table for people.

Measures nothing itself. Costs are in seconds, operations by count (`counts.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from cosyvoice_core.config import FlowConfig, VocoderConfig
from cosyvoice_core.flow.attention import CacheForm

TOKEN_RATE = 25
"""Speech tokens per second."""
EARLY_CHUNK = 5
"""The chunk of speech that the last one is compared with: the first ones are too quick to be timed well."""


@dataclass(frozen=True, slots=True)
class AcousticPlan:
    """What is measured. cache_bytes: memory for caches; grow_s: length of the growing stream; work_s: of the streams
    that are compared with recomputing; batches: streams at once; batch_s: their length; fixed_shapes: whether their
    steps have fixed shapes."""

    flow: FlowConfig = field(default_factory=FlowConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    cache_bytes: int = 8 * 2**30
    grow_s: int = 30
    work_s: tuple[int, ...] = (10, 20, 30)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    batch_s: int = 2
    fixed_shapes: bool = False
    seed: int = 0

    @classmethod
    def quick(cls) -> AcousticPlan:
        """Fewer and narrower layers, as wide per head as the official ones: under a minute on two CPU cores."""
        flow = FlowConfig(
            encoder_dim=128,
            encoder_heads=4,
            encoder_ffn=256,
            encoder_blocks=1,
            upsampled_blocks=1,
            channels=128,
            estimator_heads=4,
            estimator_head_dim=64,
            blocks_per_stage=1,
            mid_stages=1,
        )
        vocoder = VocoderConfig(base_channels=64, f0_channels=64)
        return cls(flow, vocoder, cache_bytes=2**30, work_s=(10, 30), batches=(1, 4, 16))


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """A chunk of a growing stream: frames before it, seconds for all its work, and operations by count.

    step_s: median of its Euler steps with both rows, which a hiccup of the machine does not move.
    """

    before: int
    seconds: float
    step_s: float
    counted: float


@dataclass(frozen=True, slots=True)
class WorkCost:
    """A whole stream: seconds and operations, incremental and as the original's prefixes."""

    audio_s: int
    incremental_s: float
    recompute_s: float
    incremental_counted: float
    recompute_counted: float

    @property
    def time_ratio(self) -> float:
        return self.recompute_s / self.incremental_s

    @property
    def count_ratio(self) -> float:
        return self.recompute_counted / self.incremental_counted


@dataclass(frozen=True, slots=True)
class BatchCost:
    """Streams of one voice at once, against one after another."""

    streams: int
    together_s: float
    in_turn_s: float

    @property
    def ratio(self) -> float:
        return self.together_s / self.in_turn_s


@dataclass(frozen=True, slots=True)
class FormCost:
    """One form of caches: memory per second of audio, and a chunk at the end of the growing stream."""

    form: CacheForm
    bytes_per_s: int
    chunk: ChunkCost


@dataclass(slots=True)
class AcousticResult:
    """Figures of one run."""

    plan: AcousticPlan
    form: CacheForm
    chunks: list[ChunkCost] = field(default_factory=list)
    work: list[WorkCost] = field(default_factory=list)
    batches: list[BatchCost] = field(default_factory=list)
    forms: list[FormCost] = field(default_factory=list)
    first_chunk_new_s: float = 0.0
    first_chunk_known_s: float = 0.0
    flow_real_time_factor: float = 0.0
    vocoder_real_time_factor: float = 0.0
    vocoder_constant: float = 0.0
    mel_max_abs: float = 0.0
    audio_max_abs: float = 0.0

    @property
    def growth(self) -> float:
        """Measured over counted cost of the last chunk relative to an early one: 1 when nothing hidden grows."""
        early, last = self.chunks[EARLY_CHUNK - 1], self.chunks[-1]
        return (last.step_s / early.step_s) / (last.counted / early.counted)

    def summary(self) -> dict[str, float]:
        """The figures that matter most, by name."""
        longest = self.work[-1]
        return {
            "growth": self.growth,
            f"work_ratio_{longest.audio_s}s": longest.time_ratio,
            f"work_ratio_{longest.audio_s}s_counted": longest.count_ratio,
            "stream_vs_oneshot_max_abs": max(self.mel_max_abs, self.audio_max_abs),
            f"batch{self.batches[-1].streams}_ratio": self.batches[-1].ratio,
            "first_chunk_new_voice_s": self.first_chunk_new_s,
            "first_chunk_known_voice_s": self.first_chunk_known_s,
            "flow_real_time_factor": self.flow_real_time_factor,
            "vocoder_real_time_factor": self.vocoder_real_time_factor,
            "vocoder_cost_late_over_early": self.vocoder_constant,
        }

    def record(self) -> dict[str, object]:
        """Everything, as plain data."""
        return {
            **self.summary(),
            "cache_form": str(self.form),
            "plan": asdict(self.plan),
            "chunks": [asdict(chunk) for chunk in self.chunks],
            "work": [
                asdict(work) | {"time_ratio": work.time_ratio, "count_ratio": work.count_ratio} for work in self.work
            ],
            "batches": [asdict(batch) | {"ratio": batch.ratio} for batch in self.batches],
            "forms": [asdict(form) for form in self.forms],
        }


def table(result: AcousticResult) -> Iterator[str]:
    """Lines for people."""
    plan = result.plan
    yield f"flow chunks of a growing stream ({result.form} caches, {plan.grow_s} s behind a prompt of 3 s)"
    yield f"{'context s':>10}{'chunk s':>10}{'step ms':>10}{'counted GFLOP':>15}{'GFLOP/s':>10}"
    rate = TOKEN_RATE * plan.flow.mel_ratio
    for chunk in _some(result.chunks):
        speed = chunk.counted / chunk.seconds / 1e9
        yield (
            f"{chunk.before / rate:>10.0f}{chunk.seconds:>10.3f}{chunk.step_s * 1000:>10.1f}"
            f"{chunk.counted / 1e9:>15.1f}{speed:>10.1f}"
        )
    yield "\nwhole streams: incremental, and every prefix recomputed with the original's hops"
    yield f"{'audio s':>10}{'increm. s':>11}{'recomp. s':>11}{'ratio':>8}{'by count':>10}"
    for work in result.work:
        yield (
            f"{work.audio_s:>10}{work.incremental_s:>11.2f}{work.recompute_s:>11.2f}{work.time_ratio:>8.2f}"
            f"{work.count_ratio:>10.2f}"
        )
    shapes = ", steps of fixed shapes" if plan.fixed_shapes else ""
    yield f"\nstreams of {plan.batch_s} s, known voice{shapes}"
    yield f"{'streams':>10}{'together s':>12}{'in turn s':>11}{'ratio':>8}{'audio s/s':>11}"
    for batch in result.batches:
        yield (
            f"{batch.streams:>10}{batch.together_s:>12.2f}{batch.in_turn_s:>11.2f}{batch.ratio:>8.2f}"
            f"{batch.streams * plan.batch_s / batch.together_s:>11.2f}"
        )
    yield "\ncaches"
    yield f"{'form':>10}{'MB per s':>10}{'chunk s':>10}  at {plan.flow.chunk_frames}-frame chunks behind 12 s"
    for form in result.forms:
        yield f"{form.form:>10}{form.bytes_per_s / 1e6:>10.1f}{form.chunk.seconds:>10.3f}"
    yield ""
    for name, value in result.summary().items():
        yield f"{name:<34}{value:>12.3g}"


def _some(chunks: Sequence[ChunkCost]) -> list[ChunkCost]:
    """Every fifth, and the last."""
    chosen = list(chunks[EARLY_CHUNK - 1 :: 5])
    return chosen if chosen and chosen[-1] is chunks[-1] else [*chosen, chunks[-1]]
