"""`python -m tools.setup_browser`: a Chromium for the tests of the page, from the system's own packages.

Standard library only. Apart from `setup_env`, since it changes the machine and not only the project's folder: it is
done where it was asked for (`make browser`), which CI does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""As distributions call it; COSYVOICE_BROWSER names another."""

_PACKAGES = ("chromium", "fonts-dejavu-core")
_INSTALL = (("apt-get", "update"), ("apt-get", "install", "--yes", "--no-install-recommends", *_PACKAGES))


def browser() -> str | None:
    """Path of the browser that tests use."""
    return os.environ.get("COSYVOICE_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    """Returns the process's exit status."""
    if (found := browser()) is not None:
        print(f"tests of the page use {found}")
        return 0
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        print("install Chromium yourself (on Debian, as root: apt-get install chromium), or name one in")
        print("COSYVOICE_BROWSER; until then tests of the page are skipped")
        return 1
    for command in _INSTALL:
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}", file=sys.stderr)
            return 1
    found = browser()
    print(f"tests of the page use {found}" if found else "the package brought no browser that is known here")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
