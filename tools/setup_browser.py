"""`python -m tools.setup_browser`: a Chromium for the tests of the page, from the system's own packages.

Standard library only. Apart from `setup_env`, since it changes the machine and not only the project's folder: it is
done where it was asked for (`make browser`), which CI does.
"""

from __future__ import annotations

import os
import shutil
import sys

from tools.system_packages import can_install, install

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""As distributions call it; COSYVOICE_BROWSER names another."""

_PACKAGES = ("chromium", "fonts-dejavu-core")


def browser() -> str | None:
    """Path of the browser that tests use."""
    return os.environ.get("COSYVOICE_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    """Returns the process's exit status."""
    if (found := browser()) is not None:
        print(f"tests of the page use {found}")
        return 0
    if not can_install():
        print("install Chromium yourself (on Debian, as root: apt-get install chromium), or name one in")
        print("COSYVOICE_BROWSER; until then tests of the page are skipped")
        return 1
    if not install(*_PACKAGES):
        return 1
    found = browser()
    print(f"tests of the page use {found}" if found else "the package brought no browser that is known here")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
