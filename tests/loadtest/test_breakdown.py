"""Reading the service's account of a first audio."""

from __future__ import annotations

import pytest

from deployments.ingress.answering import server_timing
from deployments.messages import FirstAudio
from loadtest.breakdown import stages_of


def test_what_the_service_writes_is_what_the_load_test_reads() -> None:
    parts = (("ingress", 0.0021), ("lm-wait", 0.03), ("lm", 0.25), ("hops", 0.01))
    header = server_timing(FirstAudio("id", parts))
    assert header.startswith("total;dur=292.1, ")
    assert [(stage.name, pytest.approx(stage.seconds)) for stage in stages_of(header)] == list(parts)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ()),
        ('miss, cache;desc="hit, or so"', ()),
        ('db;dur=53, app;desc="a;dur=9";dur=47.2', (("db", 0.053), ("app", 0.0472))),
        ("a;DUR = 5", (("a", 0.005),)),
        ("total;dur=9", ()),
        ('a;dur="2.5", b;dur=soon, c;dur=1', (("a", 0.0025), ("c", 0.001))),
    ],
)
def test_forms_that_the_standard_allows(header: str, expected: tuple[tuple[str, float], ...]) -> None:
    assert [(stage.name, pytest.approx(stage.seconds)) for stage in stages_of(header)] == list(expected)
