"""Reports: what is written is read again, pages stand alone, exit codes follow the SLO."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loadtest.__main__ import main
from loadtest.charts import charts
from loadtest.commands.exits import Exit, exit_of
from loadtest.errors import ScenarioError
from loadtest.html import page
from loadtest.page_table import BEGIN, END, refresh
from loadtest.pulse import ClientLoad
from loadtest.record import ErrorKind, StageTime
from loadtest.report import Report
from loadtest.terminal import markdown, render
from tests.loadtest.made import level, record, report

STAGES = (StageTime("lm", 0.1), StageTime("flow", 0.15))
GOOD = level("1/s", [record(0.3, intended_s=6.0 + n, stages=STAGES, number=n) for n in range(10)])
LATE = level(
    "2/s",
    [record(1.3 + n / 10, intended_s=6.0 + n, pauses_s=(1.5,), stages=STAGES) for n in range(10)]
    + [record(None, intended_s=17.0, error=ErrorKind.OVERLOADED)],
    load=2.0,
)
SLOW_CLIENT = replace(GOOD, client=ClientLoad(0.0, 0.2, 0.4, 0.95))


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = report(GOOD, LATE)
    made.write(tmp_path / "r.json")
    assert Report.read(tmp_path / "r.json") == made


@pytest.mark.parametrize(
    ("content", "says"),
    [('{"schema_version": 1}', "no report of version 1"), ("not json", "no report"), (None, "cannot read")],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "r.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ScenarioError, match=says):
        Report.read(file)


def test_a_report_of_another_version_is_refused_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    report(GOOD).write(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 2}))
    with pytest.raises(ScenarioError, match="version 2; this program reads 1"):
        Report.read(file)


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (report(GOOD), Exit.KEPT),
        (report(GOOD, LATE), Exit.MISSED),
        (report(SLOW_CLIENT), Exit.INVALID),
        (report(LATE, SLOW_CLIENT), Exit.INVALID),
        (report(level("idle", [])), Exit.MISSED),
    ],
)
def test_exit_codes(made: Report, code: Exit, tmp_path: Path) -> None:
    assert exit_of(made) is code
    made.write(tmp_path / "r.json")
    assert main(["show", str(tmp_path / "r.json")]) == code


def test_wrong_arguments_and_an_absent_service_have_codes_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--scenario", "nothing"]) == Exit.WRONG
    assert main(["run", "--url", "http://127.0.0.1:9", "--quiet"]) == Exit.INVALID
    assert "http://127.0.0.1:9/health" in capsys.readouterr().err


def test_the_terminal_names_what_is_wrong() -> None:
    shown = render(report(GOOD, replace(LATE, client=SLOW_CLIENT.client)))
    assert "2/s: 1 overloaded" in shown
    assert "SLO missed (goodput below 99%) at: 2/s" in shown
    assert "NOT THE SERVICE'S FIGURES ALONE: 2/s: the client's event loop ran 200 ms late" in shown
    assert "SLO kept" in render(report(GOOD))


def test_figures_per_gpu_are_shown_where_there_are_gpus() -> None:
    made = report(GOOD)
    on_two = replace(GOOD.summary, audio_per_s_per_gpu=GOOD.summary.audio_per_s / 2)
    served = replace(made, service=replace(made.service, gpus=2), levels=(replace(GOOD, summary=on_two),))
    assert "per second and GPU (2): 1/s 0.25" in render(served)
    assert "GPU (" not in render(made)


def test_a_page_needs_nothing_else_and_holds_all_plots() -> None:
    made = report(GOOD, LATE)
    html = page(made)
    assert html.count("<svg") == len(charts(made)) == 6
    for foreign in ("<script", "<link", "src=", "@import", "url("):
        assert foreign not in html
    for fact in ("a processor", "python -m loadtest run", "httpx 0.28", "abc", "2026-11-25"):
        assert fact in html


def test_names_from_elsewhere_cannot_write_into_the_page() -> None:
    made = report(GOOD)
    evil = replace(made, service=replace(made.service, health={"model": "<script>alert(1)</script>"}))
    assert "<script" not in page(evil)


def test_plots_are_files_of_their_own(tmp_path: Path) -> None:
    report(GOOD, LATE).write(tmp_path / "r.json")
    main(["show", str(tmp_path / "r.json"), "--svg", str(tmp_path / "plots"), "--html", str(tmp_path / "r.html")])
    files = sorted((tmp_path / "plots").glob("*.svg"))
    assert len(files) == 6
    for file in files:
        assert ElementTree.fromstring(file.read_text()).tag == "{http://www.w3.org/2000/svg}svg"
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_a_report_of_one_failed_level_can_be_shown() -> None:
    made = report(level("1/s", [record(None, error=ErrorKind.CONNECTION)]))
    assert page(made)
    assert "1 connection" in render(made)


def test_the_table_of_a_page_is_replaced_and_nothing_around_it(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    made = report(GOOD, LATE)
    for _ in range(2):
        refresh(file, made)
    text = file.read_text()
    assert text.startswith(f"before\n{BEGIN}\n`python -m loadtest run`, 2026-11-25, commit abc")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert text.count(markdown(made)) == 1
    assert "| lm | 100 / 100 | 100 / 100 |" in text


def test_a_page_without_a_place_for_the_table_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text("nothing here")
    with pytest.raises(ScenarioError, match="needs a line"):
        refresh(file, report(GOOD))
    assert file.read_text() == "nothing here"
