"""What flow decoder and vocoder do can be read from the metrics port of their node."""

from __future__ import annotations

import time

from deployments.client import CosyVoiceClient
from tests.cluster.test_text_stream import metrics


def test_steps_caches_and_voices_of_the_acoustic_stages_are_counted(client: CosyVoiceClient) -> None:
    """What earlier tests did may be told late, so that more may have happened; exact counts are in the unit tests."""
    before = metrics()
    with client.speak("Good morning, how are you today.", voice="demo_female", seed=1) as stream:
        samples = sum(len(chunk) for chunk in stream)
    chunks = -(-samples // 24000)

    shown: set[str] = set()

    def missing() -> dict[str, float | None]:
        """What was not as it should be yet: every process tells its figures now and then, and gauges not for long."""
        now = metrics()

        def grown(name: str) -> float:
            return now.get(f"ray_cosyvoice_{name}", 0.0) - before.get(f"ray_cosyvoice_{name}", 0.0)

        def level(name: str) -> float | None:
            return now.get(f"ray_cosyvoice_{name}")

        steps = grown("flow_step_ms_count")
        right = {
            "flow_step_ms_count": steps >= 10 * chunks,
            "flow_step_ms_sum": grown("flow_step_ms_sum") > 0,
            "flow_step_streams_count": grown("flow_step_streams_count") == steps,
            # Saved voices are warm before the first request, and keep pages.
            "flow_prefix_hits_total": grown("flow_prefix_hits_total") >= 1,
            "flow_free_pages": (level("flow_free_pages") or 0.0) > 0,
            "flow_cache_bytes": (level("flow_cache_bytes") or 0.0) > 0,
            "flow_open_streams": level("flow_open_streams") == 0,
            "flow_waiting_streams": level("flow_waiting_streams") == 0,
            "vocoder_step_ms_count": grown("vocoder_step_ms_count") >= chunks,
        }
        shown.update(name for name, holds in right.items() if holds)
        return {name: level(name) for name in right.keys() - shown}

    until = time.monotonic() + 60
    while (wrong := missing()) and time.monotonic() < until:
        time.sleep(0.2)
    assert not wrong
