"""Which streams of a device take the next Euler step together, and who may keep caches when memory is short.

Whoever is due first goes first; others join the call as far as padding allows. A stream that needs a page when none
is free gets one from, in this order: prefixes of voices, least recently used first; streams that rest between two
chunks and are due later, which will recompute. Otherwise it waits, if its listener has enough to hear and others work
on, or recomputes.

Knows neither threads nor clocks: when a stream is due is asked of whoever opened it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.flow.load import FlowLoad
from cosyvoice_core.flow.memory import FlowMemory
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.prefix import PrefixCache
from cosyvoice_core.flow.runner import StepRunner
from cosyvoice_core.flow.stepper import FlowStepper
from cosyvoice_core.flow.stream import FlowStream

Due = tuple[int, float]
"""Order of urgency: class (0: has heard nothing), then a time in seconds on the asker's clock."""


@dataclass(frozen=True, slots=True)
class FlowVoice:
    """A prompt: tokens (P,), mel (2P, bins), speaker (speaker_dim,), and a key that names all three."""

    key: Hashable
    tokens: Tensor
    mel: Tensor
    speaker: Tensor


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """batch: streams in one estimator call. padding: rows of a call over rows that are no padding, at most.

    patience_s: a stream whose listener has at least so much to hear waits for a page instead of recomputing.
    """

    batch: int = 4
    padding: float = 1.5
    patience_s: float = 3.0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        if self.padding < 1:
            raise ValueError(f"padding must be at least 1, got {self.padding}")


@dataclass(eq=False, slots=True)
class Push:
    """Tokens for one stream; work until all chunks they complete are done. began: called at each step of it."""

    stream: FlowStream
    tokens: Sequence[int]
    last: bool
    began: Callable[[], None] = lambda: None
    fed: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step came to for one push: mel (bins, frames) of a chunk, an error that ends it, or None: it is done."""

    push: Push
    result: Tensor | Exception | None

    @property
    def ended(self) -> bool:
        return not isinstance(self.result, Tensor)


@dataclass(slots=True)
class _Open:
    due: Callable[[], Due]
    voice: FlowVoice
    left_s: Callable[[], float]


class FlowScheduler:
    """All streams of one device. Not for several threads at once."""

    def __init__(
        self,
        model: FlowModel,
        memory: FlowMemory,
        limits: SchedulerLimits | None = None,
        *,
        prefix_bytes: int = 0,
        left_chunks: int | None = None,
        runner: StepRunner | None = None,
    ) -> None:
        """prefix_bytes: of `memory`, how much voices may keep; left_chunks: see `FlowStream`; runner: see
        `FlowStepper`."""
        self.memory = memory
        self.prefixes = PrefixCache(prefix_bytes)
        self._model = model
        self._limits = limits or SchedulerLimits()
        self._left_chunks = left_chunks
        self._stepper = FlowStepper(model, memory, runner)
        self._open: dict[FlowStream, _Open] = {}
        self._stepped = self._waiting = self._recomputed = 0
        self._prefix_hits = self._prefix_misses = 0

    @property
    def open_streams(self) -> int:
        return len(self._open)

    @property
    def load(self) -> FlowLoad:
        """What is going on now, and what happened since the start."""
        pages = self.memory.pages
        return FlowLoad(
            stepped=self._stepped,
            waiting=self._waiting,
            open=len(self._open),
            free_pages=pages.free,
            cache_bytes=(pages.count - pages.free) * self.memory.page_bytes,
            recomputed=self._recomputed,
            prefix_hits=self._prefix_hits,
            prefix_misses=self._prefix_misses,
            stream_pages=pages.count - pages.free - self.prefixes.pages,
        )

    def set_limits(self, limits: SchedulerLimits) -> None:
        """Other limits from the next step on. Raises ValueError for more streams than steps are recorded for."""
        slots = self.memory.slots
        if slots and limits.batch > slots:
            raise ValueError(f"batch must be at most {slots}, for which steps are recorded, got {limits.batch}")
        self._limits = limits

    def open(self, voice: FlowVoice, due: Callable[[], Due], left_s: Callable[[], float]) -> FlowStream:
        """A new stream; `left_s` tells how many seconds its listener still has to hear."""
        prefix = self.prefixes.get(voice.key)
        stream = FlowStream(
            self._model, self.memory, voice.tokens, voice.mel, voice.speaker, prefix, left_chunks=self._left_chunks
        )
        self._open[stream] = _Open(due, voice, left_s)
        if len(voice.tokens) >= self._model.config.chunk_tokens + self._model.config.lookahead_tokens:
            self._prefix_hits += prefix is not None
            self._prefix_misses += prefix is None
        return stream

    def close(self, stream: FlowStream) -> None:
        """Free what the stream holds, whatever it is doing."""
        if self._open.pop(stream, None) is not None:
            stream.close()
            self._waiting = min(self._waiting, len(self._open))

    def remember(self, stream: FlowStream) -> None:
        """Keep the prompt's chunks of a stream for later utterances of its voice; before tokens of speech are fed."""
        voice = self._open[stream].voice
        if self.prefixes.get(voice.key) is None and (prefix := stream.snapshot()) is not None:
            self.prefixes.put(voice.key, prefix)

    def warm(self, voice: FlowVoice) -> bool:
        """Compute what utterances of a voice share before the first comes; False when memory does not hold it."""
        if self.prefixes.get(voice.key) is None:
            prefix = self._stepper.prefix(voice.tokens, voice.mel, voice.speaker)
            if prefix is None:
                return False
            self.prefixes.put(voice.key, prefix)
        return self.prefixes.get(voice.key) is not None

    def warm_up(self, chunks: int) -> None:
        """Compute speech of nobody, so that first utterances find kernels, tables and memory ready.

        One stream of so many chunks, up to which the first unconditional step is known then, and as many at once as
        may step together, of one chunk. Leaves nothing behind that anybody reads. Raises EngineError for a broken
        result.
        """
        config = self._model.config
        nobody = FlowVoice(
            object(),
            torch.zeros(0, dtype=torch.long),
            torch.zeros((0, config.mel_bins)),
            torch.ones(config.speaker_dim),
        )
        for streams, length in ((1, chunks), (self._limits.batch, min(chunks, 1))):
            tokens = [0] * (length * config.chunk_tokens)
            pushes = [Push(self.open(nobody, lambda: (0, 0.0), lambda: 0.0), tokens, last=True) for _ in range(streams)]
            try:
                left = pushes
                while left:
                    ended = {outcome.push: outcome.result for outcome in self.step(left) if outcome.ended}
                    for result in ended.values():
                        if isinstance(result, Exception):
                            raise result
                    left = [push for push in left if push not in ended]
            finally:
                for push in pushes:
                    self.close(push.stream)
        self._stepped = self._recomputed = 0

    def step(self, pushes: Sequence[Push]) -> list[Outcome]:
        """One Euler step for the most urgent of the pushes. While there are any, something goes on in every step."""
        # Whoever left may have closed his stream before his push was taken back; it must not cost the others theirs.
        closed = [push for push in pushes if push.stream not in self._open]
        outcomes = [Outcome(push, EngineError("the stream was closed")) for push in closed]
        ready: list[Push] = []
        waiting: list[Push] = []
        for push in sorted((push for push in pushes if push.stream in self._open), key=self._due):
            if len(ready) == self._limits.batch:
                break
            self._begin(push, ready, waiting, outcomes)
        if waiting and not ready and not outcomes:
            # All that memory could come from waits itself: the most urgent one recomputes and sets pages free.
            self._begin(waiting[0], ready, None, outcomes)
        self._stepped, self._waiting = len(ready), len(pushes) - len(ready) - len(outcomes)
        return outcomes + self._advance(ready)

    def _begin(self, push: Push, ready: list[Push], waiting: list[Push] | None, outcomes: list[Outcome]) -> None:
        """See whether a push has a chunk to step, joins the others, has to wait (not without `waiting`) or is done."""
        try:
            if not push.fed:
                push.stream.feed(push.tokens, last=push.last)
                push.fed = True
            if waiting is not None and not self._has_room(push.stream):
                waiting.append(push)
                return
            resting = push.stream.chunk is None
            chunk = push.stream.begin()
            if chunk is None:
                outcomes.append(Outcome(push, None))
                return
            self._recomputed += resting and chunk.first < chunk.new
            if self._joins(push, ready):
                push.began()
                ready.append(push)
        except (InputError, EngineError, ValueError) as error:
            outcomes.append(Outcome(push, error))
        except RuntimeError as error:
            outcomes.append(Outcome(push, EngineError(f"a chunk of the flow decoder could not begin: {error}")))

    def _advance(self, ready: list[Push]) -> list[Outcome]:
        if not ready:
            return []
        try:
            complete = self._stepper.step([push.stream for push in ready])
        except RuntimeError as error:
            if len(ready) > 1:
                # Streams are as they were before the call, so each can show by itself whether it is to blame.
                return [outcome for push in ready for outcome in self._advance([push])]
            return [Outcome(ready[0], EngineError(f"a step of the flow decoder failed: {error}"))]
        outcomes = []
        for push in ready:
            if push.stream in complete:
                try:
                    outcomes.append(Outcome(push, push.stream.finish()))
                    if not push.stream.ready:
                        outcomes.append(Outcome(push, None))
                except EngineError as error:
                    outcomes.append(Outcome(push, error))
        return outcomes

    def _has_room(self, stream: FlowStream) -> bool:
        """See to the stream's pages; False while it has to wait for them."""
        needed = stream.pages_needed
        if needed <= self.memory.pages.free or needed > self.memory.pages.count:
            return True
        if stream.cached:
            # (To become incremental again is worth no other stream's caches.)
            self._make_room(stream, needed)
        return needed <= self.memory.pages.free or self._open[stream].left_s() < self._limits.patience_s

    def _make_room(self, asking: FlowStream, needed: int) -> None:
        while self.memory.pages.free < needed and self.prefixes.drop_oldest():
            pass
        due = self._open[asking].due()
        resting = [
            stream for stream in self._open if stream.chunk is None and stream.own_pages and stream is not asking
        ]
        for stream in sorted(resting, key=lambda stream: self._open[stream].due(), reverse=True):
            if self.memory.pages.free >= needed or self._open[stream].due() <= due:
                return
            stream.give_up_caches()

    def _joins(self, push: Push, ready: list[Push]) -> bool:
        """Whether the call stays mostly free of padding with this one in it."""
        chunks = [other.stream.chunk for other in (*ready, push) if other.stream.chunk is not None]
        frames = [self._stepper.width(chunk) for chunk in chunks]
        return max(frames) * len(frames) <= self._limits.padding * sum(frames)

    def _due(self, push: Push) -> Due:
        return self._open[push.stream].due()
