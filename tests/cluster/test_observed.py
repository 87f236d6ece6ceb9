"""What can be seen of the service from outside: its logs, a trace, its metrics, and whether it is ready."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.cluster.conftest import free_port
from tests.cluster.observed import ObservedService, observed_service
from tests.config.queries import alert_rules, asked, dashboard_queries

STAGES = {"lm": "tokens", "flow": "frames", "vocoder": "samples"}
TEXT = "Good morning, how are you today. It is late."
# Counted when something goes wrong, and not there before.
OF_TROUBLE = {"underruns", "underrun_seconds", "replays", "flow_recomputed_chunks"}


@pytest.fixture(scope="module")
def observed() -> Iterator[ObservedService]:
    folder = Path(tempfile.mkdtemp(prefix="cv", dir="/tmp"))
    try:
        with observed_service(folder, free_port()) as service:
            yield service
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def speak(service: ObservedService, headers: dict[str, str], **body: object) -> httpx.Response:
    request = {"input": TEXT, "voice": "demo_female", "seed": 1, "response_format": "pcm", **body}
    return httpx.post(f"{service.url}/v1/audio/speech", json=request, headers=headers, timeout=120)


def wait_for(true: Callable[[], object], timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.2)


def test_the_lines_of_all_stages_are_joined_by_the_id_of_the_request(observed: ObservedService) -> None:
    name = "desk-7:a/b@c"
    response = speak(observed, {"x-request-id": name})
    assert response.status_code == 200
    samples = len(response.content) // 2
    wait_for(lambda: observed.lines(event="request", request=name))
    (whole,) = observed.lines(event="request", request=name)
    assert (whole["outcome"], whole["delivery"], whole["replays"]) == ("ok", "listener", 0)
    assert whole["deployment"].endswith("Ingress")
    assert whole["audio_s"] == pytest.approx(samples / 24000, abs=1e-3)
    parts = [
        seconds for field, seconds in whole.items() if field.startswith("first_audio_") and field != "first_audio_s"
    ]
    assert sum(parts) == pytest.approx(whole["first_audio_s"], abs=0.002)
    assert 0 < whole["first_audio_s"] <= whole["total_s"]

    wait_for(lambda: len(observed.lines(event="utterance", request=name)) == 2 * len(STAGES))
    lines = observed.lines(event="utterance", request=name)
    assert {(line["stage"], line["segment"]) for line in lines} == {(stage, n) for stage in STAGES for n in (0, 1)}
    assert all(line["outcome"] == "ok" and line["seconds"] > 0 for line in lines)
    assert len({line["replica"] for line in lines}) == len(STAGES)
    made = {stage: sum(line[unit] for line in lines if line["stage"] == stage) for stage, unit in STAGES.items()}
    assert made["vocoder"] == samples
    assert made["flow"] == pytest.approx(2 * made["lm"], abs=4)


def test_a_refused_request_has_a_line_and_no_utterances(observed: ObservedService) -> None:
    assert speak(observed, {"x-request-id": "refused"}, voice="nobody").status_code == 400
    wait_for(lambda: observed.lines(event="request", request="refused"))
    (line,) = observed.lines(event="request", request="refused")
    assert (line["outcome"], line["reason"], line["chunks"]) == ("refused", "invalid", 0)
    assert observed.lines(event="utterance", request="refused") == []


def test_one_trace_leads_through_all_stages(observed: ObservedService) -> None:
    trace_id, caller = os.urandom(16), os.urandom(8)
    traceparent = f"00-{trace_id.hex()}-{caller.hex()}-01"
    response = speak(observed, {"x-request-id": "traced", "traceparent": traceparent}, input="Good morning.")
    assert response.status_code == 200
    # Each span is sent when it has ended, by processes of their own.
    wait_for(lambda: any(span.name.startswith("proxy_http_request") for span in observed.collector.of_trace(trace_id)))
    wait_for(lambda: len(_handled(observed, trace_id)) == 4)
    spans = {span.span_id: span for span in observed.collector.of_trace(trace_id)}

    def above(span: Span) -> list[str]:
        names = []
        while span.parent_span_id in spans:
            span = spans[span.parent_span_id]
            if span.name.startswith("replica_handle_request"):
                names.append(span.name.split()[1])
        assert span.parent_span_id == caller
        return names

    handled = _handled(observed, trace_id)
    assert above(handled["SpeechLM"]) == ["FlowDecoder", "Vocoder", "Ingress"]
    assert above(handled["FlowDecoder"]) == ["Vocoder", "Ingress"]
    assert above(handled["Vocoder"]) == ["Ingress"]

    def seconds(span: Span) -> float:
        return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9

    def attributes(span: Span) -> dict[str, object]:
        return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}

    # Stages pull from each other, so each lasts as long as the one below it.
    chain = [seconds(handled[stage]) for stage in ("SpeechLM", "FlowDecoder", "Vocoder", "Ingress")]
    assert chain == sorted(chain)
    for stage, (deployment, span) in zip(
        STAGES, [(one, handled[one]) for one in ("SpeechLM", "FlowDecoder", "Vocoder")], strict=True
    ):
        found = attributes(span)
        assert found["cosyvoice.request"] == "traced", deployment
        assert found["cosyvoice.outcome"] == "ok"
        assert found[f"cosyvoice.{STAGES[stage]}"] > 0  # type: ignore[operator]
        assert [event.name for event in span.events] == ["first hop"]
    of_request = attributes(handled["Ingress"])
    (first_audio,) = (span for span in spans.values() if span.name == "first audio")
    assert first_audio.parent_span_id == handled["Ingress"].span_id
    assert seconds(first_audio) == pytest.approx(of_request["cosyvoice.first_audio_s"], abs=0.001)
    parts = [span for span in spans.values() if span.parent_span_id == first_audio.span_id]
    assert {"ingress", "queue", "lm", "flow", "vocoder", "hops"} <= {span.name for span in parts}
    assert sum(map(seconds, parts)) == pytest.approx(seconds(first_audio), abs=0.001)


def _handled(observed: ObservedService, trace_id: bytes) -> dict[str, Span]:
    """Spans of the calls that replicas have answered, by deployment."""
    spans = observed.collector.of_trace(trace_id)
    return {span.name.split()[1]: span for span in spans if span.name.startswith("replica_handle_request")}


def test_all_that_dashboard_and_alerts_ask_for_is_exported(observed: ObservedService) -> None:
    speak(observed, {})
    speak(observed, {}, voice="nobody")
    queries = [*dashboard_queries(), *(rule["expr"] for rule in alert_rules())]
    missing = {one for query in queries for one in asked(query)}
    missing = {one for one in missing if _own_name(one.metric) not in OF_TROUBLE}
    assert len(missing) > 30
    # A saved voice is known already; one that nobody has heard is not.
    prompt = Path(__file__).parents[2] / "checkpoints" / "demo" / "prompts" / "demo_deep.wav"
    form = {"input": "Good morning.", "response_format": "pcm"}
    cut = prompt.read_bytes()[:-24000]
    httpx.post(f"{observed.url}/v1/audio/speech", data=form, files={"prompt_audio": cut}, timeout=120)

    def seen() -> bool:
        """Every process tells its figures now and then, and gauges not for long."""
        for line in observed.metrics().splitlines():
            name, _, rest = line.partition("{")
            labels = frozenset(re.findall(r'(\w+)="', rest))
            missing.difference_update([one for one in missing if one.metric == name and one.labels <= labels])
        return not missing

    try:
        wait_for(seen)
    except AssertionError:
        assert missing == set()


def _own_name(metric: str) -> str:
    return metric.removeprefix("ray_cosyvoice_").removesuffix("_total")


def test_a_service_without_a_language_model_is_alive_and_not_ready(observed: ObservedService) -> None:
    assert httpx.get(f"{observed.url}/ready", timeout=30).json() == {"status": "ok", "waiting_for": []}
    stages = httpx.get(f"{observed.url}/health?stages=true", timeout=30).json()["stages"]
    os.kill(stages["SpeechLM"]["process"], signal.SIGKILL)

    def not_ready() -> bool:
        answer = httpx.get(f"{observed.url}/ready", timeout=30)
        assert answer.status_code in (200, 503)
        return answer.status_code == 503 and answer.json()["waiting_for"] == ["SpeechLM"]

    wait_for(not_ready)
    assert httpx.get(f"{observed.url}/health", timeout=30).json()["status"] == "ok"
    wait_for(lambda: httpx.get(f"{observed.url}/ready", timeout=30).status_code == 200, 120)
