"""The commands and programs that README.md shows, as it shows them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def shown(language: str, containing: str) -> str:
    """The one block of `language` in README.md that contains `containing`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    found: str = block
    return found


def counting(program: str) -> str:
    """A Python example whose loop over chunks, left open in README, counts their samples and prints the number."""
    assert program.count("...") == 1
    return "samples = 0\n" + program.replace("...", "samples += len(chunk)") + "\nprint('samples', samples)\n"
