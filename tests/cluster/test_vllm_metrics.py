"""vLLM's own figures come out of Ray's metrics endpoint beside ours."""

from __future__ import annotations

import threading

import pytest

from deployments.client import CosyVoiceClient
from deployments.speech_lm.vllm_process import vllm_installed
from tests.cluster.test_service import LONG, wait_until
from tests.cluster.test_text_stream import metrics

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(not vllm_installed(), reason="the engine is not vLLM")]

GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
COUNTERS = (
    "generation_tokens_total",
    "prompt_tokens_total",
    "time_to_first_token_seconds_count",
    "request_num_preemptions_count",
)


def test_running_waiting_cache_preemptions_and_tokens_are_exported(client: CosyVoiceClient) -> None:
    """Ray exports a gauge of vLLM only while vLLM sets it, so somebody speaks until all have been seen.

    Of preemptions the histogram is there from the first request on, the counter from the first preemption.
    """
    done = threading.Event()

    def keep_speaking() -> None:
        while not done.is_set():
            with client.speak(LONG, voice="demo_male", seed=1, realtime=False) as stream:
                stream.read()

    before = metrics()
    seen: dict[str, list[float]] = {}

    def all_seen() -> bool:
        now = metrics()
        for name in GAUGES:
            if (value := now.get(f"ray_vllm_{name}")) is not None:
                seen.setdefault(name, []).append(value)
        counted = all(now.get(f"ray_vllm_{name}", 0.0) > before.get(f"ray_vllm_{name}", 0.0) for name in COUNTERS)
        running, usage = seen.get("num_requests_running", []), seen.get("kv_cache_usage_perc", [])
        return counted and set(GAUGES) <= seen.keys() and max(running) >= 1 and 0 < max(usage) <= 1

    speaker = threading.Thread(target=keep_speaking)
    speaker.start()
    try:
        wait_until(all_seen, 120)
    finally:
        done.set()
        speaker.join(120)
