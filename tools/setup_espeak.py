"""`python -m tools.setup_espeak`: the library of espeak-ng, which teaches the demo voice, from the system's packages.

Standard library only. Done where it was asked for (`make espeak`), which CI does.
"""

from __future__ import annotations

import ctypes
import sys

from tools.system_packages import can_install, install

LIBRARY = "libespeak-ng.so.1"
PACKAGES = ("libespeak-ng1", "espeak-ng-data")


def installed() -> bool:
    """Whether the library can be loaded."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def main() -> int:
    """Returns the process's exit status."""
    if installed():
        print(f"{LIBRARY} is there")
        return 0
    if not can_install():
        print(f"install espeak-ng yourself (on Debian, as root: apt-get install {' '.join(PACKAGES)});")
        print("until then the demo voice cannot be trained and tests of its teacher are skipped")
        return 1
    if not install(*PACKAGES):
        return 1
    print(f"{LIBRARY} is there" if installed() else f"the packages brought no {LIBRARY}")
    return 0 if installed() else 1


if __name__ == "__main__":
    sys.exit(main())
