"""Scenarios and texts: what ships is usable, and what is wrong is named with what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.doors.registry import DOORS
from loadtest.errors import ScenarioError
from loadtest.request import Draw
from loadtest.scenario import SCENARIOS, Scenario, TraceLoad
from loadtest.session import planned_levels
from loadtest.texts import LENGTHS, Texts

GOOD = "load: {kind: poisson, rates: [1]}\n"


@pytest.mark.parametrize("name", sorted(path.stem for path in SCENARIOS.glob("*.yaml")))
def test_shipped_scenarios_can_be_run(name: str) -> None:
    scenario = Scenario.from_yaml(name)
    assert scenario.name == name
    assert scenario.description
    assert set(scenario.mix.doors) <= set(DOORS)
    draw = Draw(scenario.mix, Texts.from_directory(), ("demo_female",), scenario.seed, scenario.writing)
    assert draw.request(0).text
    levels = list(planned_levels(scenario))
    assert levels
    assert all(level.offsets is None or level.offsets for level in levels)


def test_every_language_has_texts_of_every_length() -> None:
    texts = Texts.from_directory()
    assert set(texts.languages) == {"en", "zh", "ja", "ko", "mixed", "numbers"}
    for language in texts.languages:
        sizes = [max(map(len, texts.of(language, length))) for length in LENGTHS]
        assert sizes == sorted(sizes), language
        everything = [text for length in LENGTHS for text in texts.of(language, length)]
        assert len(set(everything)) == len(everything)


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("load: {kind: storm}", "'poisson', 'bursts', 'trace', 'closed'"),
        ("load: {kind: poisson, rates: []}", "load.poisson.rates"),
        ("load: {kind: poisson, rates: [0]}", "greater than 0"),
        ("load: {kind: closed, users: [0]}", "greater than or equal to 1"),
        (GOOD + "mix: {lengths: {endless: 1}}", "'short', 'sentence', 'paragraph' or 'long'"),
        (GOOD + "mix: {languages: {en: 0}}", "languages: at least one share"),
        (GOOD + "mix: {cancels: 2}", "mix.cancels"),
        (GOOD + "slo: {first_audio_s: .inf}", "slo.first_audio_s"),
        (GOOD + "durations: 3", "durations"),
        ("name: x", "load: Field required"),
        ("[1, 2]", "must be a mapping"),
        ("load: {", "not valid YAML"),
    ],
)
def test_wrong_scenarios_are_named_by_field(tmp_path: Path, yaml: str, says: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml)
    with pytest.raises(ScenarioError) as caught:
        Scenario.from_yaml(str(file))
    assert says in str(caught.value)
    assert "wrong.yaml" in str(caught.value)


def test_an_unknown_scenario_lists_those_that_ship() -> None:
    with pytest.raises(ScenarioError, match="conversation"):
        Scenario.from_yaml("nothing")


def test_paths_are_meant_from_the_scenarios_own_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("load: {kind: trace, file: day.txt}\ntexts: words\n")
    scenario = Scenario.from_yaml(str(tmp_path / "mine.yaml"))
    assert isinstance(scenario.load, TraceLoad)
    assert scenario.load.file == tmp_path / "day.txt"
    assert scenario.texts == tmp_path / "words"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("short: []", "list of texts"),
        ("tiny: [a]", "unknown length 'tiny'"),
        ("- a", "must map"),
        ("short: ['']", "none of them empty"),
    ],
)
def test_wrong_texts_are_named_by_file(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "en.yaml").write_text(content)
    with pytest.raises(ScenarioError, match=says):
        Texts.from_directory(tmp_path)
    with pytest.raises(ScenarioError, match="no texts here"):
        Texts.from_directory(tmp_path / "empty")
