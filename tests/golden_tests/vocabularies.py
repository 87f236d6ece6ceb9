"""The text vocabularies that golden cases are given for: the tiny one always, the released one where it lies.

Its files belong to their authors and do not come with the project; COSYVOICE_REFERENCE_DATA names a folder with
`official_config/` in it. Without it, cases of the released vocabulary are not collected.
"""

from __future__ import annotations

import os
from pathlib import Path

REFERENCE_DATA = os.environ.get("COSYVOICE_REFERENCE_DATA")
VOCABULARIES = ("tiny", "real") if REFERENCE_DATA else ("tiny",)


def vocabulary_directory(name: str, golden_lm: Path) -> Path:
    if name == "real":
        assert REFERENCE_DATA is not None
        return Path(REFERENCE_DATA) / "official_config"
    return golden_lm / "ckpt" / "CosyVoice-BlankEN"
