"""The deployment files of the project, as the tests here read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deployments.local import read_config

ROOT = Path(__file__).parents[2]
SERVE_CONFIGS = sorted(path for path in [ROOT / "serve_config.yaml", *(ROOT / "config").glob("*.yaml")])
KUBERNETES = ROOT / "config" / "kubernetes"


def application(path: Path) -> dict[str, Any]:
    """The application of a Serve config."""
    found: dict[str, Any] = read_config(path)["applications"][0]
    return found
