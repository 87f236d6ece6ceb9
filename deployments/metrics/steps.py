"""What the step loops of all stages count: rows and time of a step, work and sound of a replica."""

from __future__ import annotations

from ray.serve.metrics import Counter, Histogram

_STEP_ROWS = [1, 2, 4, 8, 16, 32, 64]
_STEP_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]


class StepMetrics:
    """Steps of one replica's engine: how many rows each has, and how long it takes."""

    def __init__(self, stage: str, rows: str) -> None:
        self._rows = Histogram(
            f"cosyvoice_{stage}_step_{rows}",
            description=f"How many {rows} of different utterances one step of the {stage} computes.",
            boundaries=_STEP_ROWS,
        )
        self._seconds = Histogram(
            f"cosyvoice_{stage}_step_ms", description=f"Time of one step of the {stage}.", boundaries=_STEP_MS
        )

    def observe(self, rows: int, seconds: float) -> None:
        self._rows.observe(rows)
        self._seconds.observe(max(seconds * 1000, 0.001))


class WorkMetrics:
    """Seconds of work of one replica and the sound that came of it; their rates' quotient is its real-time factor."""

    def __init__(self) -> None:
        self._busy = Counter("cosyvoice_stage_busy_seconds", description="Seconds in which the replica computed.")
        self._made = Counter("cosyvoice_stage_audio_seconds", description="Seconds of sound the replica has done.")

    def observe(self, busy_s: float, audio_s: float) -> None:
        """What came since the last call."""
        if busy_s > 0:
            self._busy.inc(busy_s)
        if audio_s > 0:
            self._made.inc(audio_s)
