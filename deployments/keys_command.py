"""`python -m deployments keys`: makes API keys. Writes no file and keeps nothing; what it prints is all there is."""

from __future__ import annotations

import argparse
import sys

from deployments.ingress.callers import is_key_name
from deployments.ingress.keys import hash_of, new_key, weakness

_TO_THE_READER = """\
Key of {name}, shown this once and stored nowhere; give it to whoever is to call:

  {key}
"""
_ENTRY = """\
Add this under `keys:` in the keys file (args.security.keys_file); docs/security.md has the fields for priority, quotas
and voices:

  - name: {name}
    sha256: '{digest}'"""


def add_keys_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its options."""
    keys = commands.add_parser("keys", help="make an API key").add_subparsers(dest="action", required=True)
    new = keys.add_parser("new", help="print a new key, and the entry of the keys file that goes with it")
    new.add_argument("name", help="of whoever is to use it; letters, digits, - and _")
    new.add_argument("--from-stdin", action="store_true", help="take the key from standard input instead of making one")


def make_key(options: argparse.Namespace) -> int:
    """Run it; the exit status."""
    if not is_key_name(options.name):
        print("NAME must be of letters, digits, - and _, 40 characters at most, and not anyone", file=sys.stderr)
        return 2
    if options.from_stdin:
        # Not as an argument, which other users of the machine can see.
        key = sys.stdin.readline().rstrip("\r\n")
        if (why := weakness(key)) is not None:
            print(f"This key is too weak to be used: {why}. Without --from-stdin a good one is made.", file=sys.stderr)
            return 1
    else:
        key = new_key()
        print(_TO_THE_READER.format(name=options.name, key=key))
    print(_ENTRY.format(name=options.name, digest=hash_of(key)))
    return 0
