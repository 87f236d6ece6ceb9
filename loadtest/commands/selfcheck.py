"""`selfcheck`: does this load test report the truth? Runs it against a server of known timing on loopback."""

from __future__ import annotations

import argparse
import asyncio

from loadtest.commands.exits import Exit
from loadtest.selfcheck import render, selfcheck


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def main(options: argparse.Namespace) -> Exit:
    checks = asyncio.run(selfcheck(quiet=options.quiet))
    print(render(checks))
    return Exit.KEPT if all(check.passed for check in checks) else Exit.MISSED
