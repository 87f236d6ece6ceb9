"""`python -m tools.kubernetes`: puts the Serve configs of config/ into the RayService manifests that deploy them.

A RayService holds its Serve config as one text. A line `serveConfigV2: |  # config/NAME.yaml` says which file that is;
this command writes the file's text below it, so that there is one truth. Standard library only; knows no cluster.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = ROOT / "config" / "kubernetes"
_MARK = re.compile(r"^(?P<indent> *)serveConfigV2: \|\s*#\s*(?P<config>\S+)$")


class ManifestError(ValueError):
    """A manifest names no Serve config, or one that cannot be read."""


def filled(manifest: str, root: Path = ROOT) -> str:
    """The manifest with the text of its Serve config in place. Raises ManifestError."""
    lines = manifest.splitlines()
    marks = [(number, found) for number, line in enumerate(lines) if (found := _MARK.match(line))]
    if len(marks) != 1:
        raise ManifestError("expected one line `serveConfigV2: |  # config/NAME.yaml`")
    number, found = marks[0]
    indent = len(found["indent"])
    try:
        config = (root / found["config"]).read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"{found['config']}: cannot be read ({error.strerror})") from error
    after = number + 1
    while after < len(lines) and (not lines[after].strip() or lines[after].startswith(" " * (indent + 1))):
        after += 1
    inner = [f"{' ' * (indent + 2)}{line}" if line else "" for line in config.splitlines()]
    return "\n".join([*lines[: number + 1], *inner, *lines[after:]]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the process's exit status: 1 when a manifest is behind (--check) or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.kubernetes", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when a manifest is behind")
    parser.add_argument("manifests", nargs="*", type=Path, help="default: all in config/kubernetes")
    options = parser.parse_args(argv)
    status = 0
    for path in options.manifests or sorted(MANIFESTS.rglob("rayservice.yaml")):
        old = path.read_text(encoding="utf-8")
        try:
            new = filled(old)
        except ManifestError as error:
            print(f"{path}: {error}", file=sys.stderr)
            status = 1
            continue
        if new == old:
            continue
        if options.check:
            print(f"{path} is behind its Serve config; run: python -m tools.kubernetes", file=sys.stderr)
            status = 1
        else:
            path.write_text(new, encoding="utf-8")
            print(f"{path} refreshed")
    return status


if __name__ == "__main__":
    sys.exit(main())
