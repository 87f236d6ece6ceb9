"""What an ingress replica counts: what its listeners hear, and how their requests end.

Underruns are those of a simulated player (`deployments.player`), so they are predicted, not heard.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from ray.serve.metrics import Counter, Gauge, Histogram

from deployments.messages import FirstAudio
from deployments.player import HIDDEN_S, Player

Delivery = Literal["listener", "growing", "file"]
"""listener: heard while it is made; growing: so too, while its text is being written; file: all else."""

Outcome = Literal["ok", "cancelled", "refused", "failed"]

# Dense where listeners notice: from 100 ms to 1.5 s.
_FIRST_AUDIO_MS = [50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 900, 1000, 1100, 1200, 1300, 1400,
                   1500, 2000, 3000, 5000, 10000, 30000, 60000]  # fmt: skip
_GAP_MS = [10, 20, 50, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 10000]
_AHEAD_S = [0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120]


class ListenerMetrics:
    """All requests of one ingress replica."""

    def __init__(self) -> None:
        by_delivery = ("delivery",)
        self._first_audio = Histogram(
            "cosyvoice_first_audio_ms",
            description="From a request's arrival to its first audio.",
            boundaries=_FIRST_AUDIO_MS,
            tag_keys=by_delivery,
        )
        self._parts = Counter(
            "cosyvoice_first_audio_part_seconds",
            description="Where the time to first audio went, by part.",
            tag_keys=("part",),
        )
        self._gap = Histogram(
            "cosyvoice_chunk_gap_ms",
            description="Between chunks of an answer.",
            boundaries=_GAP_MS,
            tag_keys=by_delivery,
        )
        self._ahead = Histogram(
            "cosyvoice_run_ahead_s",
            description="Audio that a listener has and has not heard yet, when a chunk leaves.",
            boundaries=_AHEAD_S,
            tag_keys=by_delivery,
        )
        self._underruns = Counter(
            "cosyvoice_underruns",
            description="Times a player ran dry for longer than 0.1 s.",
            tag_keys=by_delivery,
        )
        self._underrun_s = Counter(
            "cosyvoice_underrun_seconds", description="Seconds of those silences.", tag_keys=by_delivery
        )
        self._audio = Counter("cosyvoice_audio_seconds", description="Audio that has left.", tag_keys=by_delivery)
        self._requests = Counter(
            "cosyvoice_requests",
            description="Requests that have ended: ok, cancelled, refused or failed.",
            tag_keys=("delivery", "outcome"),
        )
        self._refusals = Counter(
            "cosyvoice_refusals", description="Requests that were not served, by reason.", tag_keys=("reason",)
        )
        self._replays = Counter("cosyvoice_replays", description="Utterances made again after the loss of a stage.")
        self._streams = Gauge(
            "cosyvoice_open_streams", description="Requests that are being answered now.", tag_keys=by_delivery
        )
        self._open: dict[Delivery, int] = {"listener": 0, "growing": 0, "file": 0}

    def stream(self, delivery: Delivery, clock: Callable[[], float] = time.monotonic) -> ListenerStream:
        """One request, to be closed once."""
        return ListenerStream(self, delivery, clock)

    def refused(self, reason: str) -> None:
        """A request is not served; reason is a word of the code's own, never of the caller's."""
        self._refusals.inc(tags={"reason": reason})

    def replayed(self) -> None:
        self._replays.inc()

    def first_audio(self, delivery: Delivery, account: FirstAudio) -> None:
        self._first_audio.observe(max(account.total_s * 1000, 0.001), {"delivery": delivery})
        for part, seconds in account.parts:
            if seconds > 0:
                self._parts.inc(seconds, {"part": part})

    def chunk(self, delivery: Delivery, audio_s: float) -> None:
        self._audio.inc(audio_s, {"delivery": delivery})
        # A gauge that is not set for a while disappears.
        self._streams.set(self._open[delivery], {"delivery": delivery})

    def played(self, delivery: Delivery, gap_s: float, ahead_s: float) -> None:
        """A chunk that is not a listener's first: the time since the one before; what was left of it, below zero for
        how long nothing was."""
        tags = {"delivery": delivery}
        self._gap.observe(max(gap_s * 1000, 0.001), tags)
        self._ahead.observe(max(ahead_s, 0.001), tags)
        if -ahead_s > HIDDEN_S:
            self._underruns.inc(tags=tags)
            self._underrun_s.inc(-ahead_s, tags)

    def opened(self, delivery: Delivery, change: Literal[1, -1]) -> None:
        self._open[delivery] += change
        self._streams.set(self._open[delivery], {"delivery": delivery})

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        self._requests.inc(tags={"delivery": delivery, "outcome": outcome})


class ListenerStream:
    """One request and its listener's player."""

    def __init__(self, metrics: ListenerMetrics, delivery: Delivery, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._delivery = delivery
        self._clock = clock
        self._player = Player(clock)
        self._latest = 0.0
        self.audio_s = 0.0
        self.chunks = 0
        self.underruns = 0
        self.underrun_s = 0.0
        metrics.opened(delivery, 1)

    def first_audio(self, account: FirstAudio) -> None:
        self._metrics.first_audio(self._delivery, account)

    def chunk(self, audio_s: float) -> None:
        """So much audio leaves now."""
        now = self._clock()
        ahead_s = self._player.take(audio_s)
        if self._delivery != "file" and ahead_s is not None:
            self._metrics.played(self._delivery, now - self._latest, ahead_s)
            if -ahead_s > HIDDEN_S:
                self.underruns += 1
                self.underrun_s -= ahead_s
        self._latest = now
        self.audio_s += audio_s
        self.chunks += 1
        self._metrics.chunk(self._delivery, audio_s)

    def close(self, outcome: Outcome, reason: str | None = None) -> None:
        """reason: of a refusal."""
        self._metrics.opened(self._delivery, -1)
        self._metrics.ended(self._delivery, outcome)
        if reason is not None:
            self._metrics.refused(reason)
