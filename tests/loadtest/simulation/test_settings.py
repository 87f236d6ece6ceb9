"""Plans and costs: what ships is usable, curves go through what was measured, what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtest.errors import ScenarioError
from loadtest.simulation.plan import PLANS, Plan
from loadtest.simulation.stage_costs import COSTS, Costs, StageCosts
from loadtest.simulation.traffic import lengths, rates
from tests.loadtest.simulation.made import plan

STAGE = "{points: [{batch: 1, audio_s_per_s: 2}], first_chunk_s: 1, start_s: 1}"
HEAD = "measured: here\ndevice: core\n"
TRAFFIC = "traffic: {peak_per_s: 1}\n"
CLUSTER = "cluster: {nodes: 1, devices_per_node: 1}\n"


@pytest.mark.parametrize("name", sorted(path.stem for path in PLANS.glob("*.yaml")))
def test_shipped_plans_are_whole(name: str) -> None:
    found = Plan.from_yaml(name)
    assert (found.name, found.duration_s) == (name, 86_400)
    assert found.description


@pytest.mark.parametrize("name", sorted(path.stem for path in COSTS.glob("*.yaml")))
def test_shipped_costs_say_where_they_are_from(name: str) -> None:
    found = Costs.from_yaml(name)
    assert list(found.stages) == ["SpeechLM", "FlowDecoder", "Vocoder"]
    for part in ("python -m deployments.bench", "torch", "20"):
        assert part in found.measured


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        (TRAFFIC, "cluster: Field required"),
        (TRAFFIC + CLUSTER + "speed: 2", "speed: Extra inputs"),
        ("traffic: {peak_per_s: 0}\n" + CLUSTER, "traffic.peak_per_s: Input should be greater than 0"),
        ("traffic: {peak_per_s: 1, curve: [0, 0]}\n" + CLUSTER, "curve: at least one value"),
        ("traffic: {peak_per_s: 1, bursts: [{at_h: 25, lasts_s: 1, factor: 2}]}\n" + CLUSTER, "bursts.0.at_h"),
        (TRAFFIC + CLUSTER + "rules: {utilization: 0.7}", "utilization; allowed are utilisation, catch_up_s"),
        (TRAFFIC + CLUSTER + "rules: {utilisation: 2}", "must be in (0, 1]"),
        (TRAFFIC + CLUSTER + "slo: {goodput: 2}", "slo.goodput: Input should be less than or equal to 1"),
        (TRAFFIC + "cluster: {nodes: 0, devices_per_node: 1}", "cluster.nodes"),
        ("[1]", "must be a mapping"),
        ("traffic: {", "not valid YAML"),
    ],
)
def test_wrong_plans_are_named_by_field(tmp_path: Path, yaml: str, says: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml)
    with pytest.raises(ScenarioError) as caught:
        Plan.from_yaml(str(file))
    assert says in str(caught.value)
    assert "wrong.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("device: core\nstages: {A: " + STAGE + "}", "measured: Field required"),
        (HEAD + "stages: {}", "stages: Dictionary should have at least 1"),
        (HEAD + "stages: {A: {points: [], start_s: 1}}", "stages.A.points"),
        (HEAD + "stages: {A: {points: [{batch: 1, audio_s_per_s: 2}], start_s: 1}}", "first_chunk_s: needed"),
        (HEAD + f"stages: {{A: {STAGE[:-1]}, per_device: 0}}}}", "stages.A.per_device"),
        (HEAD + f"stages: {{A: {STAGE[:-1]}, least: 3, most: 2}}}}", "least is 3; it must be at most most (2)"),
        (
            HEAD + "stages: {A: {points: [{batch: 2, audio_s_per_s: 2, first_s: 1}, "
            "{batch: 2, audio_s_per_s: 2, first_s: 1}], start_s: 1}}",
            "batch must grow",
        ),
    ],
)
def test_wrong_costs_are_named_by_field(tmp_path: Path, yaml: str, says: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml)
    with pytest.raises(ScenarioError) as caught:
        Costs.from_yaml(str(file))
    assert says in str(caught.value)


def test_unknown_names_list_what_ships() -> None:
    with pytest.raises(ScenarioError, match="one of: day"):
        Plan.from_yaml("nothing")
    with pytest.raises(ScenarioError, match="one of: cpu_demo"):
        Costs.from_yaml("nothing")


def test_a_curve_goes_through_what_was_measured_and_straight_between() -> None:
    points = [{"batch": 1, "audio_s_per_s": 4, "first_s": 0.1}, {"batch": 4, "audio_s_per_s": 16, "first_s": 0.4}]
    curve = StageCosts.model_validate({"points": points, "start_s": 1, "places": 8}).curve()
    assert 1 / curve.cost(np.array([1, 2, 4, 8])) == pytest.approx([4, 8, 16, 16])
    assert curve.first_s(np.array([1, 2, 4, 8])) == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert curve.real_time_places() == 8


def test_real_time_places_are_what_is_made_at_the_listeners_speed() -> None:
    points = [{"batch": 1, "audio_s_per_s": 3.6}]
    data = {"points": points, "first_chunk_s": 1, "start_s": 1, "places": 8}
    assert StageCosts.model_validate(data).curve().real_time_places() == 3


def test_rates_follow_the_day() -> None:
    made = plan(10, traffic__curve=[2, 4], traffic__bursts=[{"at_h": 12, "lasts_s": 60, "factor": 3}])
    found = rates(made.traffic, -3600, 86_400)
    assert len(found) == 90_000
    midnight = 3600
    assert found[midnight] == pytest.approx(5)
    assert found[midnight + 6 * 3600] == pytest.approx(7.5)
    assert found[midnight + 12 * 3600] == pytest.approx(30)
    assert found[midnight + 12 * 3600 + 60] == pytest.approx(10, rel=0.01)


def test_lengths_have_the_mean_that_is_wanted() -> None:
    found = lengths(plan(1, traffic__longest_audio_s=600).traffic, 100_000, np.random.default_rng(0))
    assert found.mean() == pytest.approx(6, rel=0.01)
    assert np.log(found).std() == pytest.approx(0.4, rel=0.02)
