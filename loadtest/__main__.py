"""`python -m loadtest`: measure the service as a listener hears it."""

from __future__ import annotations

import argparse
import sys
from typing import Protocol

from loadtest.commands import bench, compare, run, search, selfcheck, show, simulate
from loadtest.commands.exits import Exit
from loadtest.errors import ScenarioError, UnreachableError


class Command(Protocol):
    """A module of `loadtest.commands`."""

    __doc__: str | None

    def add(self, parser: argparse.ArgumentParser) -> None: ...

    def main(self, options: argparse.Namespace) -> Exit: ...


_COMMANDS: dict[str, tuple[Command, str]] = {
    "run": (run, "one scenario against a running service"),
    "search": (search, "the highest rate that keeps the goodput"),
    "compare": (compare, "two reports, with confidence intervals"),
    "show": (show, "a saved report again, also as a page or plots"),
    "bench": (bench, "start the service, measure it, end it"),
    "simulate": (simulate, "a day on a cluster of any size, from recorded costs"),
    "selfcheck": (selfcheck, "is what this program reports true?"),
}


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 the SLO was kept, 1 it was not, 2 wrong arguments or files, 3 nothing that can be trusted."""
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, help_text) in _COMMANDS.items():
        module.add(commands.add_parser(name, help=help_text, description=module.__doc__))
    options = parser.parse_args(argv)
    try:
        return int(_COMMANDS[options.command][0].main(options))
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return Exit.WRONG
    except UnreachableError as error:
        print(error, file=sys.stderr)
        return Exit.INVALID
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return Exit.INVALID


if __name__ == "__main__":
    sys.exit(main())
