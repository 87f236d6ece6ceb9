"""Dashboard, alerts and scrape config ask for what is really there; the docs name all of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

from tests.config.queries import (
    ALERTS,
    CONFIG,
    DASHBOARD,
    Asked,
    alert_rules,
    asked,
    dashboard_queries,
    exported,
    metrics_of_the_code,
)

PROMETHEUS = CONFIG / "prometheus"
DOCS = Path(__file__).parents[2] / "docs" / "observability.md"


def unknown(query: str) -> set[Asked]:
    known = exported()
    return {one for one in asked(query) if one.metric not in known or not one.labels <= known[one.metric]}


def test_what_is_asked_for_is_found_out() -> None:
    query = 'histogram_quantile(0.9, sum by (le, part) (rate(a_bucket{x="y"}[5m]))) / -(b offset 5m or vector(0)) > 1'
    assert asked(query) == {Asked("a_bucket", frozenset({"le", "part", "x"})), Asked("b", frozenset())}
    assert {one.metric for one in unknown("sum by (le) (ray_cosyvoice_lm_tokens_total) + ray_cosyvoice_nothing")} == {
        "ray_cosyvoice_lm_tokens_total",
        "ray_cosyvoice_nothing",
    }
    with pytest.raises(ValueError):
        asked("sum by (le (a)")


def test_dashboard_shows_only_what_is_there() -> None:
    queries = list(dashboard_queries())
    assert len(queries) > 25
    assert {query: found for query in queries if (found := unknown(query))} == {}


def test_dashboard_is_whole() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["targets"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    covered = {
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    }
    assert len(covered) == sum(p["gridPos"]["w"] * p["gridPos"]["h"] for p in dashboard["panels"]), "panels overlap"
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text(encoding="utf-8"))) - {"__rate_interval", "__all"}
    assert used == {variable["name"] for variable in dashboard["templating"]["list"]}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {one.metric for query in dashboard_queries() for one in asked(query)}
    missing = {
        name
        for metric in metrics_of_the_code()
        if not any(seen.startswith(f"ray_{(name := metric.info['name'])}") for seen in shown)
    }
    assert missing == set()


def test_alerts_ask_only_for_what_is_there() -> None:
    rules = alert_rules()
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        assert unknown(rule["expr"]) == set(), rule["alert"]


def test_every_alert_is_tried_in_trouble_and_out_of_it() -> None:
    quiet, trouble = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    names = sorted(rule["alert"] for rule in alert_rules())
    assert sorted(case["alertname"] for case in quiet["alert_rule_test"]) == names
    (expected,) = trouble["promql_expr_test"]
    assert sorted(re.findall(r"CosyVoice\w+", str(expected["exp_samples"]))) == names


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is not installed")
@pytest.mark.parametrize(
    "check",
    [("check", "rules", "alerts.yaml"), ("check", "config", "prometheus.yaml"), ("test", "rules", "alerts_test.yaml")],
)
def test_prometheus_agrees(check: tuple[str, ...]) -> None:
    result = subprocess.run(["promtool", *check], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_prometheus_finds_the_nodes_where_ray_writes_them() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text(encoding="utf-8"))
    (scrape,) = config["scrape_configs"]
    (found,) = (Path(path) for one in scrape["file_sd_configs"] for path in one["files"])
    assert found == Path("/tmp/ray") / PROMETHEUS_SERVICE_DISCOVERY_FILE
    assert [PROMETHEUS / path for path in config["rule_files"]] == [ALERTS]


def test_the_docs_name_every_metric_and_alert() -> None:
    text = DOCS.read_text(encoding="utf-8")
    documented = {name.removesuffix("_total") for name in re.findall(r"^\| `([^|]+)` \|", text, re.MULTILINE)}
    documented = {name for cell in documented for name in cell.replace("`", "").split(", ")}
    documented = {name.removesuffix("_total") for name in documented}
    assert {metric.info["name"].removeprefix("cosyvoice_") for metric in metrics_of_the_code()} <= documented
    assert all(rule["alert"].removeprefix("CosyVoice") in text for rule in alert_rules())
