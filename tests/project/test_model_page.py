"""docs/model.md has the sections that docstrings send their readers to."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECTIONS = (
    "Rates and sizes",
    "Checkpoint files",
    "Text tokenizer",
    "Text front end",
    "Prompt features",
    "Request modes",
    "Speech-token LM",
    "Sampling (RAS)",
    "Bi-stream",
    "Merged vocabulary",
    "Token encoder",
    "Flow matching",
    "Estimator",
    "Vocoder",
    "Streaming",
    "Exact incremental computation",
    "Differences from the original",
    "CosyVoice3",
)
MENTION = re.compile(r"docs/model\.md\W{1,4}([A-Z][^\n]*)")


def mentions(text: str) -> list[str]:
    """What follows each `docs/model.md, ` in a source, line ends and comment signs taken out."""
    joined = re.sub(r"\s*\n\s*#?\s*", " ", text)
    return [found[1] for found in MENTION.finditer(joined.replace("docs/model.md", "\ndocs/model.md"))]


def sources() -> list[Path]:
    return sorted(path for room in ("cosyvoice_core", "deployments") for path in (ROOT / room).rglob("*.py"))


def test_headings_are_the_agreed_ones_in_order() -> None:
    page = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == list(SECTIONS)


def test_docstrings_point_at_sections_that_exist() -> None:
    found = [(str(path), mention[:60]) for path in sources() for mention in mentions(path.read_text())]
    assert len(found) > 10
    assert [pair for pair in found if not pair[1].startswith(SECTIONS)] == []


def test_a_mention_is_found_across_lines_and_checked() -> None:
    assert mentions('"""Source: docs/model.md,\n    "Vocoder".\n"""')[0].startswith(SECTIONS)
    assert not mentions('"""Source: docs/model.md, "Voccoder"."""')[0].startswith(SECTIONS)
