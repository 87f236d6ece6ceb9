"""Which metrics there are, told by the code that makes them, and which ones a query of Prometheus asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml
from ray.util import metrics as ray_metrics

from deployments.metrics import FlowMetrics, LanguageModelMetrics, ListenerMetrics, StepMetrics, WorkMetrics
from deployments.work import WorkMeter

CONFIG = Path(__file__).parents[2] / "config"
DASHBOARD = CONFIG / "grafana" / "cosyvoice.json"
ALERTS = CONFIG / "prometheus" / "alerts.yaml"

# What Ray adds to every metric of a replica, and Prometheus to every metric.
COMMON = {"application", "deployment", "replica", "instance", "job"}
# Of Serve itself; that they are there, with these labels, is looked at in tests/cluster/test_observed.py.
OF_SERVE = {
    "ray_serve_deployment_replica_healthy": COMMON,
    "ray_serve_deployment_replica_starts_total": COMMON,
    "ray_serve_deployment_queued_queries": {"application", "deployment"},
    "ray_serve_event_loop_scheduling_latency_ms_bucket": {"application", "deployment", "le"},
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A metric in a query, and the labels that it must have: matched, or grouped by."""

    metric: str
    labels: frozenset[str]


def metrics_of_the_code() -> list[ray_metrics.Metric]:
    """All that replicas make, one by one."""
    made: list[ray_metrics.Metric] = []
    begin = ray_metrics.Metric.__init__

    def note(metric: ray_metrics.Metric, *args: Any, **kwargs: Any) -> None:
        begin(metric, *args, **kwargs)
        made.append(metric)

    ray_metrics.Metric.__init__ = note
    try:
        LanguageModelMetrics(WorkMeter(), 25.0)
        FlowMetrics()
        StepMetrics("vocoder", "windows")
        WorkMetrics()
        ListenerMetrics()
    finally:
        ray_metrics.Metric.__init__ = begin
    return made


def exported() -> dict[str, set[str]]:
    """Names as Prometheus sees them, with their labels."""
    found = dict(OF_SERVE)
    for metric in metrics_of_the_code():
        name, labels = f"ray_{metric.info['name']}", COMMON | set(metric.info["tag_keys"])
        if isinstance(metric, ray_metrics.Histogram):
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels, f"{name}_sum": labels}
        else:
            found[f"{name}_total" if isinstance(metric, ray_metrics.Counter) else name] = labels
    return found


def dashboard_queries() -> Iterator[str]:
    """Of all panels, with values for Grafana's variables, which are no PromQL."""
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "5m").replace("$application", ".*")


def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def asked(query: str) -> set[Asked]:
    """Raises ValueError for what is no PromQL."""
    found: set[Asked] = set()
    _visit(promql_parser.parse(query), frozenset(), found.add)
    return found


def _visit(node: Any, grouped: frozenset[str], found: Callable[[Asked], None]) -> None:
    if isinstance(node, promql_parser.VectorSelector):
        matched = frozenset(matcher.name for matcher in node.matchers.matchers)
        found(Asked(node.name, grouped | matched))
    elif isinstance(node, promql_parser.MatrixSelector):
        _visit(node.vector_selector, grouped, found)
    elif isinstance(node, promql_parser.AggregateExpr):
        by = frozenset(node.modifier.labels) if node.modifier else frozenset()
        _visit(node.expr, grouped | by, found)
    elif isinstance(node, promql_parser.BinaryExpr):
        _visit(node.lhs, grouped, found)
        _visit(node.rhs, grouped, found)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            _visit(argument, grouped, found)
    elif isinstance(node, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
        _visit(node.expr, grouped, found)
