"""Traces with OpenTelemetry: where Serve's spans go, and the spans of a first audio.

Serve makes a span of every call between deployments, joined by W3C trace context, when the Serve config has
`tracing_config`; without, nothing here is ever called. Install `cosyvoice-serve[tracing]`.
"""

from __future__ import annotations

import os
import time

from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor

from deployments.messages import FirstAudio

_TRACER = trace.get_tracer("cosyvoice")


def exporters() -> list[SpanProcessor]:
    """For `tracing_config.exporter_import_path`: OTLP over HTTP to OTEL_EXPORTER_OTLP_ENDPOINT, nowhere if unset.

    All other settings are OpenTelemetry's own environment variables.
    """
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return []
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return [BatchSpanProcessor(OTLPSpanExporter())]


def first_audio_spans(request: trace.Span, account: FirstAudio) -> None:
    """Below the request's span one that ends now, and below that one for each part, end to end."""
    ended = time.time_ns()
    began = ended - round(account.total_s * 1e9)
    attributes = {"cosyvoice.request": account.request_id}
    whole = _TRACER.start_span(
        "first audio", trace.set_span_in_context(request), attributes=attributes, start_time=began
    )
    inside = trace.set_span_in_context(whole)
    for name, seconds in account.parts:
        until = began + round(max(seconds, 0.0) * 1e9)
        _TRACER.start_span(name, inside, start_time=began).end(until)
        began = until
    whole.end(ended)
