"""Packages of the system itself, for what tests need and no Python package brings. Standard library only.

Apart from `setup_env`, since it changes the machine and not only the project's folder: it is done where it was asked
for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def can_install() -> bool:
    """Whether this is Debian or one of its family, and we are root."""
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def install(*packages: str) -> bool:
    """Install them; says in apt's words why not, if it fails."""
    for command in (("apt-get", "update"), ("apt-get", "install", "--yes", "--no-install-recommends", *packages)):
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}", file=sys.stderr)
            return False
    return True
