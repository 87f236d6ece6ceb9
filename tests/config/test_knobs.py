"""The page of settings names every setting there is, as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.__main__ import main
from deployments.args import AppArgs
from deployments.knobs import BEGIN, END, knobs, refreshed
from tests.config.files import ROOT

PAGE = ROOT / "docs" / "operations.md"


def leaves(value: object, prefix: str = "") -> set[str]:
    """Names of all values of a dumped model; lists and mappings of users' own keys are values."""
    if isinstance(value, dict) and prefix not in ("lexicon.", "voice_aliases."):
        return {name for key, inner in value.items() for name in leaves(inner, f"{prefix}{key}.")}
    return {prefix.removesuffix(".")}


def test_every_setting_is_listed_once_and_described() -> None:
    found = list(knobs())
    assert sorted(knob.name for knob in found) == sorted(leaves(AppArgs().model_dump()))
    assert [knob.name for knob in found if not knob.meaning or not knob.type] == []


def test_the_page_is_as_the_code_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert refreshed(page) == page, "run: python -m deployments knobs --page docs/operations.md"


def test_refreshing_replaces_the_table_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nan outdated line\n{END}\nafter\n")
    assert main(["knobs", "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "outdated" not in text
    assert "| `flow.cache_bytes` | integer | `2147483648` |" in text


@pytest.mark.parametrize("content", ["nothing", BEGIN, f"{END} {BEGIN}"])
def test_a_page_without_a_place_for_the_table_is_left_alone(tmp_path: Path, content: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(content)
    assert main(["knobs", "--page", str(page)]) == 1
    assert page.read_text() == content


def test_without_a_page_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knobs"]) == 0
    assert "| `lm.engine` | auto, vllm, torch | `auto` |" in capsys.readouterr().out
