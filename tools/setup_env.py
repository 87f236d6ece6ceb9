"""`python -m tools.setup_env`: makes the virtual environment that every `make` target runs in.

Standard library only, since it runs before anything is installed. When nothing changed since the last time it
only compares a hash. Why each step is as it is: docs/decisions.md.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.setup_choices import (
    CPU_INDEX,
    SetupError,
    detect_device,
    find_python,
    read_stamp,
    setup_key,
    torch_pin,
    up_to_date,
    venv_python,
)
from tools.setup_steps import Environment, say

ROOT = Path(__file__).resolve().parent.parent
STEPS = 8


@contextmanager
def step(number: int, title: str) -> Iterator[None]:
    """Announce a step and tell how long it took."""
    print(f"[{number}/{STEPS}] {title}", flush=True)
    start = time.monotonic()
    yield
    say(f"({time.monotonic() - start:.1f} s)")


@contextmanager
def only_one(venv: Path) -> Iterator[None]:
    """Two set-ups of one environment (`make serve` and `make test` in two shells) must not mix."""
    venv.parent.mkdir(parents=True, exist_ok=True)
    with venv.with_name(f"{venv.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of this environment is running; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(venv: Path, device: str, exact: tuple[int, int] | None, *, dev: bool = True) -> None:
    """All steps in order; the stamp comes last, so that an interrupted set-up is taken up again."""
    start = time.monotonic()
    base = find_python((sys.version_info[0], sys.version_info[1]), exact is not None)
    print(f"Setting up {venv} for {device}; the first time takes some minutes, mostly downloads", flush=True)
    environment = Environment(ROOT, venv, device, dev=dev)
    with step(1, "virtual environment"):
        environment.create(base, exact)
        (venv / "setup.json").unlink(missing_ok=True)
    with step(2, "pip"):
        environment.upgrade_pip()
    with step(3, "torch"):
        pin = torch_pin((ROOT / "pyproject.toml").read_text())
        torch_version = environment.install_torch(pin, os.environ.get("COSYVOICE_TORCH_INDEX", CPU_INDEX))
    with step(4, "the project and what it needs"):
        environment.install_project(torch_version)
    with step(5, "repair"):
        environment.repair()
    with step(6, "check"):
        found = environment.check()
    with step(7, "clients that tests call"):
        environment.add_clients()
    with step(8, "the recogniser that judges the demo voice"):
        environment.add_recogniser()
    seconds = round(time.monotonic() - start, 1)
    python = venv_python(venv) or ""
    key = setup_key(ROOT, python, kind_of(device, dev))
    stamp = {"key": key, "python": python, "device": device, "seconds": seconds, **found}
    (venv / "setup.json").write_text(json.dumps(stamp, indent=1) + "\n")
    print(f"Ready in {seconds} s.", flush=True)


def kind_of(device: str, dev: bool) -> str:
    """What an environment is for, in the words of its stamp."""
    return device if dev else f"{device}, without dev"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="setup_env", description="Make the project's virtual environment.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--quiet", action="store_true", help="say nothing when there is nothing to do")
    parser.add_argument("--force", action="store_true", help="go through all steps even when nothing changed")
    parser.add_argument("--exact-python", action="store_true", help="use no other Python than the one this runs in")
    parser.add_argument("--without-dev", action="store_true", help="leave out what only tests and checks need")
    options = parser.parse_args(argv)
    dev = not options.without_dev
    venv: Path = options.venv.absolute()
    exact = (sys.version_info[0], sys.version_info[1]) if options.exact_python else None
    try:
        device = detect_device(os.environ)
        if not options.force and up_to_date(ROOT, venv, kind_of(device, dev), exact):
            if not options.quiet:
                engine = read_stamp(venv).get("engine") or "the torch engine, without vLLM"
                print(f"{venv} is up to date ({device}, {engine}); 'make setup FORCE=1' goes through it anyway")
            return 0
        with only_one(venv):
            if options.force or not up_to_date(ROOT, venv, kind_of(device, dev), exact):
                build(venv, device, exact, dev=dev)
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
