"""docs/security.md: every threat names a test that there is, and every setting it speaks of exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from deployments.args import AppArgs
from deployments.ingress.keys import read_keys

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    """Cells of the threat table without its head."""
    table = PAGE.partition("## Threats")[2].partition("## ")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]


def test_every_threat_has_a_defence_and_a_test() -> None:
    found = rows()
    assert len(found) > 20
    for threat, defence, shown_by in found:
        assert defence, threat
        assert TEST.fullmatch(shown_by.split(", ")[0]), f"{threat}: {shown_by} is no test"


def test_every_test_that_is_named_exists() -> None:
    named = TEST.findall(PAGE)
    assert len(named) >= PAGE.count("::test_")
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in defined, f"{file} has no {name}"


def test_settings_that_are_named_exist() -> None:
    args = AppArgs()
    named = set(re.findall(r"`(security|limits)\.(\w+)`", PAGE))
    assert ("limits", "body_timeout_s") in named
    for group, name in named:
        assert hasattr(getattr(args, group), name), f"{group}.{name}"


def test_the_keys_file_that_is_shown_can_be_read() -> None:
    shown = PAGE.partition("```yaml\n")[2].partition("```")[0]
    (entry,) = read_keys(re.sub(r"[0-9a-f]+…", "0" * 64, shown), "docs/security.md")
    assert entry.caller().voices == ("demo_*", "beta:shared")
