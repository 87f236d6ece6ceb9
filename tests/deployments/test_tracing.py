"""Where spans go. That they are made, joined and sent is tested in tests/cluster/test_observed.py."""

from __future__ import annotations

import pytest

from deployments.tracing import exporters

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def test_without_an_endpoint_spans_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert exporters() == []


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_endpoint_gets_spans(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    (processor,) = exporters()
    processor.shutdown()
