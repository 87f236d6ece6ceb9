"""The acoustic engine, flow and vocoder, with seeded random weights on the device at hand, all in one run.

Shows what streaming costs: a chunk as an utterance grows, incremental work against recomputing every prefix as the
original does, streams together against streams in turn, a known voice against a new one, memory per second. Says
nothing about sound. Sizes are the official ones, or with `quick` smaller ones of the same shape.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cosyvoice_core.bench.acoustic_figures import (
    TOKEN_RATE,
    AcousticPlan,
    AcousticResult,
    BatchCost,
    ChunkCost,
    FormCost,
    WorkCost,
)
from cosyvoice_core.bench.counts import FlowCounts, official_stops
from cosyvoice_core.checkpoint.layout import flow_layout, vocoder_layout
from cosyvoice_core.checkpoint.random import random_state
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.memory import FlowMemory, form_within, page_bytes
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.runner import StepRunner
from cosyvoice_core.flow.scheduler import Due, FlowScheduler, FlowVoice, Push, SchedulerLimits
from cosyvoice_core.flow.session import FlowSession
from cosyvoice_core.flow.stepper import FlowStepper
from cosyvoice_core.vocoder import SourceNoise, Vocoder, VocoderStream

_PROMPT_TOKENS = 75

Progress = Callable[[str], None]


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
        frames = (plan.grow_s + _PROMPT_TOKENS // TOKEN_RATE) * TOKEN_RATE * plan.flow.mel_ratio
        self._form = form_within(self._flow, plan.cache_bytes, frames)
        self._generator = torch.Generator().manual_seed(plan.seed)
        self._tokens = torch.randint(0, plan.flow.vocab_size, (60 * TOKEN_RATE,), generator=self._generator)
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
        tokens = self._tokens[: seconds * TOKEN_RATE]
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
            self._progress(f"growing stream: {(before + frames) / (TOKEN_RATE * config.mel_ratio):.0f} s")
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
            tokens = self._tokens[: audio_s * TOKEN_RATE]
            self._progress(f"whole stream of {audio_s} s, incremental")
            session = self._session(self._stepper(self._form))
            incremental = self._timed(partial(self._in_hops, session, tokens))
            session.close()
            stops = official_stops(len(prompt), len(tokens), config.chunk_tokens, config.lookahead_tokens)
            for stop in stops:
                final = stop == len(prompt) + len(tokens)
                if (stop, final) not in cost:
                    self._progress(f"recomputing a prefix of {stop / TOKEN_RATE:.1f} s")
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
        tokens = self._tokens[: plan.grow_s * TOKEN_RATE]
        voice = self._voice
        whole = self._flow.mel(tokens, voice.tokens, voice.mel, voice.speaker, streaming=True, finalize=True).cpu()
        result.mel_max_abs = float((mel - whole[:, whole.shape[1] - mel.shape[1] :]).abs().max())
        noise = SourceNoise(plan.seed, plan.vocoder.samples_per_frame)
        whole_audio = self._vocoder.vocode(whole[None].to(self._device), noise)[0]
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
        frames = streams * plan.batch_s * TOKEN_RATE * plan.flow.mel_ratio + 4 * plan.flow.chunk_frames
        form = form_within(self._flow, plan.cache_bytes, frames)
        memory = FlowMemory(self._flow, plan.cache_bytes, form, slots=batch if plan.fixed_shapes else 0)
        runner = None
        if plan.fixed_shapes:
            runner = StepRunner(self._flow, memory, record=self._device.type == "cuda")
            runner.warm_up()
        scheduler = FlowScheduler(
            self._flow, memory, SchedulerLimits(batch=batch), prefix_bytes=plan.cache_bytes, runner=runner
        )
        scheduler.warm(self._voice)
        tokens = self._tokens[: plan.batch_s * TOKEN_RATE].tolist()
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
            pages = (seconds + _PROMPT_TOKENS // TOKEN_RATE) * TOKEN_RATE // self._plan.flow.chunk_tokens + 1
            self._progress(f"caches of form {form}")
            memory = FlowMemory(self._flow, need * pages, form)
            chunks, _ = self._grown(FlowStepper(self._flow, memory), form, seconds)
            per_s = need * TOKEN_RATE // self._plan.flow.chunk_tokens
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
