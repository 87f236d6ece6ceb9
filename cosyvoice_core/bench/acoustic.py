"""The acoustic engine, flow and vocoder, with seeded random weights on the device at hand, all in one run.

Shows what streaming costs: a chunk as an utterance grows, incremental work against recomputing every prefix as the
original does, streams together against streams in turn, a known voice against a new one, memory per second. Says
nothing about sound. Sizes are the official ones, or with `quick` smaller ones of the same shape.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from cosyvoice_core.bench.counts import FlowCounts, official_stops
from cosyvoice_core.checkpoint.layout import flow_layout, vocoder_layout
from cosyvoice_core.checkpoint.random import random_state
from cosyvoice_core.config import FlowConfig, VocoderConfig
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.memory import FlowMemory, form_within, page_bytes
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.scheduler import Due, FlowScheduler, FlowVoice, Push, SchedulerLimits
from cosyvoice_core.flow.session import FlowSession
from cosyvoice_core.flow.stepper import FlowStepper
from cosyvoice_core.vocoder import SourceNoise, Vocoder, VocoderStream

_PROMPT_TOKENS = 75
_TOKEN_RATE = 25
_EARLY_CHUNK = 5
"""The chunk of speech that the last one is compared with: the first ones are too quick to be timed well."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AcousticPlan:
    """What is measured. cache_bytes: memory for caches; grow_s: length of the growing stream; work_s: of the streams
    that are compared with recomputing; batches: streams at once; batch_s: their length."""

    flow: FlowConfig = field(default_factory=FlowConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    cache_bytes: int = 8 * 2**30
    grow_s: int = 30
    work_s: tuple[int, ...] = (10, 20, 30)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    batch_s: int = 2
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
        early, last = self.chunks[_EARLY_CHUNK - 1], self.chunks[-1]
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


def run_acoustic(plan: AcousticPlan, device: torch.device, dtype: torch.dtype, progress: Progress) -> AcousticResult:
    """Measure everything in turn; `progress` is told what is measured now."""
    return _Run(plan, device, dtype, progress).run()


class _Run:
    def __init__(self, plan: AcousticPlan, device: torch.device, dtype: torch.dtype, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        progress("weights")
        self._flow = FlowModel.from_state(
            random_state(flow_layout(plan.flow), plan.seed, "flow.pt"), plan.flow, device=device, dtype=dtype
        )
        self._vocoder = Vocoder.from_state(
            random_state(vocoder_layout(plan.vocoder), plan.seed, "hift.pt"), plan.vocoder, "random vocoder"
        ).to(device)
        self._device = device
        frames = (plan.grow_s + _PROMPT_TOKENS // _TOKEN_RATE) * _TOKEN_RATE * plan.flow.mel_ratio
        self._form = form_within(self._flow, plan.cache_bytes, frames)
        self._generator = torch.Generator().manual_seed(plan.seed)
        self._tokens = torch.randint(0, plan.flow.vocab_size, (60 * _TOKEN_RATE,), generator=self._generator)
        self._voice = FlowVoice(
            "voice",
            torch.randint(0, plan.flow.vocab_size, (_PROMPT_TOKENS,), generator=self._generator),
            torch.randn((plan.flow.mel_ratio * _PROMPT_TOKENS, plan.flow.mel_bins), generator=self._generator),
            torch.randn((plan.flow.speaker_dim,), generator=self._generator),
        )
        self._result = AcousticResult(plan, self._form)

    def run(self) -> AcousticResult:
        result = self._result
        mels = self._growing()
        self._work()
        self._exactness(mels)
        self._batches()
        self._prefix()
        self._forms()
        return result

    def _stepper(self, form: CacheForm) -> FlowStepper:
        return FlowStepper(self._flow, FlowMemory(self._flow, self._plan.cache_bytes, form))

    def _growing(self) -> Tensor:
        """A stream chunk by chunk; its mel (bins, frames)."""
        stepper = self._stepper(self._form)
        chunks, mel = self._grown(stepper, self._form, self._plan.grow_s)
        self._result.chunks = chunks
        self._result.flow_real_time_factor = sum(chunk.seconds for chunk in chunks) / self._plan.grow_s
        return mel

    def _grown(self, stepper: FlowStepper, form: CacheForm, seconds: int) -> tuple[list[ChunkCost], Tensor]:
        """Costs of the chunks behind the prompt, and all mel."""
        config, counts = self._plan.flow, FlowCounts.of(self._flow, form)
        session = self._session(stepper)
        session.push((), last=False)
        stream = session.stream
        tokens = self._tokens[: seconds * _TOKEN_RATE]
        # The prompt's last chunk waits for look-ahead: it is no part of what is timed.
        fed = stream.tokens_needed - config.chunk_tokens
        session.push(tokens[:fed], last=False)
        chunks, mels = [], []
        stream.feed(tokens[fed:], last=True)
        while True:
            began = time.perf_counter()
            chunk = stream.begin()
            if chunk is None:
                break
            frames, before, steps = chunk.frames, chunk.first, []
            complete: list[object] = []
            while not complete:
                started = time.perf_counter()
                complete = list(stepper.step([stream]))
                self._wait()
                steps.append(time.perf_counter() - started)
            mels.append(stream.finish())
            took = time.perf_counter() - began
            self._progress(f"growing stream: {(before + frames) / (_TOKEN_RATE * config.mel_ratio):.0f} s")
            if frames == config.chunk_frames:
                chunks.append(ChunkCost(before, took, statistics.median(steps[1:]), counts.chunk(frames, before)))
        session.close()
        return chunks, torch.cat(mels, dim=1)

    def _work(self) -> None:
        config, counts = self._plan.flow, FlowCounts.of(self._flow, self._form)
        ratio, chunk = config.mel_ratio, config.chunk_frames
        prompt = self._voice.tokens
        cost: dict[tuple[int, bool], float] = {}
        for audio_s in self._plan.work_s:
            tokens = self._tokens[: audio_s * _TOKEN_RATE]
            self._progress(f"whole stream of {audio_s} s, incremental")
            session = self._session(self._stepper(self._form))
            incremental = self._timed(partial(self._in_hops, session, tokens))
            session.close()
            stops = official_stops(len(prompt), len(tokens), config.chunk_tokens, config.lookahead_tokens)
            for stop in stops:
                final = stop == len(prompt) + len(tokens)
                if (stop, final) not in cost:
                    self._progress(f"recomputing a prefix of {stop / _TOKEN_RATE:.1f} s")
                    cost[stop, final] = self._timed(partial(self._prefix_mel, stop, final))
            recompute = sum(cost[stop, stop == len(prompt) + len(tokens)] for stop in stops)
            frames = (len(prompt) + len(tokens)) * ratio
            full = FlowCounts.of(self._flow)
            self._result.work.append(
                WorkCost(
                    audio_s,
                    incremental,
                    recompute,
                    counts.stream(frames, chunk),
                    full.recomputed([stop * ratio for stop in stops], chunk),
                )
            )

    def _in_hops(self, session: FlowSession, tokens: Tensor) -> None:
        """As the tokens arrive: each hop as long as the stream asks for."""
        session.push((), last=False)
        start = 0
        while start < len(tokens):
            stop = start + session.tokens_needed
            session.push(tokens[start:stop], last=stop >= len(tokens))
            start = stop

    def _prefix_mel(self, stop: int, final: bool) -> Tensor:
        ahead = 0 if final else self._plan.flow.lookahead_tokens
        tokens = self._tokens[: stop - len(self._voice.tokens) + ahead]
        voice = self._voice
        return self._flow.mel(tokens, voice.tokens, voice.mel, voice.speaker, streaming=True, finalize=final)

    def _exactness(self, mel: Tensor) -> None:
        self._progress("stream against one shot")
        result, plan = self._result, self._plan
        tokens = self._tokens[: plan.grow_s * _TOKEN_RATE]
        voice = self._voice
        whole = self._flow.mel(tokens, voice.tokens, voice.mel, voice.speaker, streaming=True, finalize=True)
        result.mel_max_abs = float((mel - whole[:, whole.shape[1] - mel.shape[1] :]).abs().max())
        whole_audio = self._vocoder.vocode(whole[None], SourceNoise(plan.seed, plan.vocoder.samples_per_frame))[0]
        stream, pieces, seconds = VocoderStream(self._vocoder, plan.seed), [], []
        hop = plan.flow.chunk_frames
        for start in range(0, whole.shape[1], hop):
            began = time.perf_counter()
            pieces.append(stream.push(whole[:, start : start + hop], last=start + hop >= whole.shape[1]))
            self._wait()
            seconds.append(time.perf_counter() - began)
        audio = torch.cat(pieces)
        result.audio_max_abs = float((audio - whole_audio).abs().max())
        result.vocoder_real_time_factor = sum(seconds) / plan.grow_s
        inner = seconds[2:-1]
        third = max(len(inner) // 3, 1)
        result.vocoder_constant = statistics.median(inner[-third:]) / statistics.median(inner[:third])

    def _batches(self) -> None:
        for count in self._plan.batches:
            self._progress(f"{count} streams together and in turn")
            together = self._spoken(count, count)
            in_turn = self._spoken(count, 1)
            self._result.batches.append(BatchCost(count, together, in_turn))

    def _spoken(self, streams: int, batch: int) -> float:
        """Seconds for so many streams of a known voice, at most `batch` of them in one estimator call."""
        plan = self._plan
        frames = streams * plan.batch_s * _TOKEN_RATE * plan.flow.mel_ratio + 4 * plan.flow.chunk_frames
        form = form_within(self._flow, plan.cache_bytes, frames)
        memory = FlowMemory(self._flow, plan.cache_bytes, form)
        scheduler = FlowScheduler(self._flow, memory, SchedulerLimits(batch=batch), prefix_bytes=plan.cache_bytes)
        scheduler.warm(self._voice)
        tokens = self._tokens[: plan.batch_s * _TOKEN_RATE].tolist()
        pushes = [
            Push(scheduler.open(self._voice, partial(_due, turn), lambda: 0.0), tokens, True) for turn in range(streams)
        ]

        def speak() -> None:
            left = pushes
            while left:
                ended = {outcome.push for outcome in scheduler.step(left) if outcome.ended}
                left = [push for push in left if push not in ended]

        return self._timed(speak)

    def _prefix(self) -> None:
        """Prompt and first chunk of a voice that is new, and of one that is known."""
        self._progress("first chunk of a new and of a known voice")
        stepper = self._stepper(self._form)
        aligned = replace(self._voice, tokens=self._voice.tokens[15:], mel=self._voice.mel[30:])
        prefix = stepper.prefix(aligned.tokens, aligned.mel, aligned.speaker)
        first = 15 + self._plan.flow.lookahead_tokens

        def speak(known: bool) -> float:
            def first_chunk() -> None:
                session = FlowSession(
                    self._flow, aligned.tokens, aligned.mel, aligned.speaker, prefix if known else None, stepper=stepper
                )
                session.push(self._tokens[:first], last=False)
                session.close()

            return min(self._timed(first_chunk) for _ in range(3))

        self._result.first_chunk_new_s = speak(False)
        self._result.first_chunk_known_s = speak(True)

    def _forms(self) -> None:
        """The end of a growing stream with each form of caches."""
        for form in CacheForm:
            need = page_bytes(self._flow, form)
            seconds = min(self._plan.grow_s, 10)
            pages = (seconds + _PROMPT_TOKENS // _TOKEN_RATE) * _TOKEN_RATE // self._plan.flow.chunk_tokens + 1
            self._progress(f"caches of form {form}")
            memory = FlowMemory(self._flow, need * pages, form)
            chunks, _ = self._grown(FlowStepper(self._flow, memory), form, seconds)
            per_s = need * _TOKEN_RATE // self._plan.flow.chunk_tokens
            self._result.forms.append(FormCost(form, per_s, chunks[-1]))

    def _session(self, stepper: FlowStepper) -> FlowSession:
        voice = self._voice
        return FlowSession(self._flow, voice.tokens, voice.mel, voice.speaker, stepper=stepper)

    def _timed(self, work: Callable[[], object]) -> float:
        self._wait()
        began = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _due(turn: int) -> Due:
    return (0, float(turn))


def table(result: AcousticResult) -> Iterator[str]:
    """Lines for people."""
    plan = result.plan
    yield f"flow chunks of a growing stream ({result.form} caches, {plan.grow_s} s behind a prompt of 3 s)"
    yield f"{'context s':>10}{'chunk s':>10}{'step ms':>10}{'counted GFLOP':>15}{'GFLOP/s':>10}"
    rate = _TOKEN_RATE * plan.flow.mel_ratio
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
    yield f"\nstreams of {plan.batch_s} s, known voice"
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
    chosen = list(chunks[_EARLY_CHUNK - 1 :: 5])
    return chosen if chosen and chosen[-1] is chunks[-1] else [*chosen, chunks[-1]]
