"""`python -m deployments serve`: the service on this machine, in the foreground.

`sizing`, `knobs`, `keys` and `voices` start nothing.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from pathlib import Path

from pydantic import ValidationError

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.errors import CheckpointError
from deployments import exposure
from deployments.args import AppArgs
from deployments.ingress.keys import KeyRing, KeysError
from deployments.keys_command import add_keys_parser, make_key
from deployments.knobs import refresh, table
from deployments.local import DeployError, LocalService, read_config, start, stop
from deployments.sizing_report import problems, report
from deployments.voices_command import add_voices_parser, run_voices

_DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "serve_config.yaml"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve_parser = commands.add_parser("serve", help="start the service on this machine")
    serve_parser.add_argument("--config", type=Path, default=_DEFAULT_CONFIG, help="Serve config (YAML)")
    serve_parser.add_argument("--port", type=int, help="HTTP port, instead of the config's")
    serve_parser.add_argument("--model", help="checkpoint directory or model id, instead of the config's")
    serve_parser.add_argument("--timeout", type=float, default=900, help="seconds to wait until all stages answer")
    serve_parser.add_argument("--host", help="address to listen on, instead of the config's")
    _add_sizing(commands.add_parser("sizing", help="what a Serve config takes on GPUs, and whether it always fits"))
    knobs_parser = commands.add_parser("knobs", help="every setting under `args` of a Serve config")
    knobs_parser.add_argument("--page", type=Path, help="Markdown page whose table is made anew")
    add_keys_parser(commands)
    add_voices_parser(commands, _DEFAULT_CONFIG)
    options = parser.parse_args(argv)
    if options.command == "keys":
        return make_key(options)
    if options.command == "voices":
        return run_voices(options)
    if options.command == "sizing":
        return _sizing(options)
    return _knobs(options.page) if options.command == "knobs" else _serve(options)


def _serve(options: argparse.Namespace) -> int:
    try:
        config = read_config(options.config)
        arguments = config["applications"][0].setdefault("args", {})
        if options.model:
            arguments["model"] = str(_model(options.model))
        # Once and with progress, before five processes ask for the same files.
        args = AppArgs.model_validate(arguments)
        CheckpointDirectory(resolve_model(args.model_source())).verify()
        keys = KeyRing.from_settings(args.security)
    except (DeployError, CheckpointError, ValidationError, KeysError) as error:
        print(f"The service could not start.\n{error}", file=sys.stderr)
        return 1
    began = time.monotonic()

    def progress(line: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {line}", file=sys.stderr, flush=True)

    try:
        progress("starting Ray")
        service = start(config, host=options.host, port=options.port, timeout_s=options.timeout, progress=progress)
        # Ray sets a handler of its own while it starts.
        signal.signal(signal.SIGTERM, _interrupt)
        _announce(service, time.monotonic() - began, keyed=keys is not None)
        for line in exposure.warnings(service.host, os.environ, keyed=keys is not None):
            print(f"\n*** SECURITY: {line}\n", file=sys.stderr, flush=True)
        signal.pause()
    except DeployError as error:
        print(f"The service could not start.\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
    finally:
        stop()
    return 0


def _add_sizing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="Serve config (YAML)")
    parser.add_argument("--card-gib", type=float, help="what programs can use of a card; 22 of an L4 with 24 GB")
    parser.add_argument("--cards", type=int, help="cards (of each pool) on which all replicas must find a place")


def _sizing(options: argparse.Namespace) -> int:
    """Status 1 when something may not fit."""
    try:
        application = read_config(options.config)["applications"][0]
    except DeployError as error:
        print(error, file=sys.stderr)
        return 1
    print(*report(application), sep="\n")
    found = problems(application, options.card_gib or math.inf, options.cards)
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


def _knobs(page: Path | None) -> int:
    if page is None:
        print(table())
        return 0
    try:
        print(f"{page} {'refreshed' if refresh(page) else 'is as it should be'}")
    except (OSError, ValueError) as error:
        print(f"{page}: {error}", file=sys.stderr)
        return 1
    return 0


def _model(given: str) -> str | Path:
    """A folder is meant from where the command is run; anything else is a model id."""
    return Path(given).resolve() if Path(given).is_dir() else given


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _announce(service: LocalService, seconds: float, *, keyed: bool) -> None:
    key = " -H 'x-api-key: YOUR KEY'" if keyed else ""
    print(
        f"Ready after {seconds:.0f} s at {service.url} (Ctrl-C stops it). Try:\n"
        f"  curl -s {service.url}/v1/audio/voices{key}\n"
        f"  curl -s {service.url}/v1/audio/speech{key} -H 'Content-Type: application/json' \\\n"
        '    -d \'{"input": "Good morning, how are you today.", "voice": "demo_female", "stream": false}\' \\\n'
        "    -o hello.wav",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
