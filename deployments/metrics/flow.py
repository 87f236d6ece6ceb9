"""What a replica of the flow decoder counts."""

from __future__ import annotations

from ray.serve.metrics import Counter, Gauge

from cosyvoice_core.flow.load import FlowLoad
from deployments.metrics.steps import StepMetrics


class FlowMetrics:
    """One replica of the flow decoder: its steps, who waits, the memory of its caches, and what memory cost."""

    def __init__(self) -> None:
        self._steps = StepMetrics("flow", "streams")
        self._gauges = {
            field: Gauge(f"cosyvoice_flow_{name}", description=description)
            for field, name, description in (
                ("open", "open_streams", "Utterances that hold state now."),
                ("waiting", "waiting_streams", "Utterances with work that were not part of the latest step."),
                ("free_pages", "free_pages", "Pages of the cache memory, one for each chunk, that nobody holds."),
                ("cache_bytes", "cache_bytes", "Bytes of the cache memory that utterances and voices hold."),
            )
        }
        self._counters = {
            field: Counter(f"cosyvoice_flow_{name}", description=description)
            for field, name, description in (
                ("recomputed", "recomputed_chunks", "Chunks that computed earlier frames again for want of memory."),
                ("prefix_hits", "prefix_hits", "Utterances whose voice's prompt was computed before."),
                ("prefix_misses", "prefix_misses", "Utterances whose voice's prompt was not known or not kept."),
            )
        }
        self._counted = dict.fromkeys(self._counters, 0)

    def observe(self, load: FlowLoad, seconds: float | None) -> None:
        """`seconds` of the step that led to this state, None where it was no step."""
        if seconds is not None and load.stepped:
            self._steps.observe(load.stepped, seconds)
        for field, gauge in self._gauges.items():
            gauge.set(getattr(load, field))
        for field, counter in self._counters.items():
            total = getattr(load, field)
            if total > self._counted[field]:
                counter.inc(total - self._counted[field])
                self._counted[field] = total
