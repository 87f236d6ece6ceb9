"""`python -m deployments serve`: the service on this machine, in the foreground."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from pydantic import ValidationError

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.errors import CheckpointError
from deployments.args import AppArgs
from deployments.local import DeployError, LocalService, read_config, start, stop

_DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "serve_config.yaml"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve_parser = commands.add_parser("serve", help="start the service on this machine")
    serve_parser.add_argument("--config", type=Path, default=_DEFAULT_CONFIG, help="Serve config (YAML)")
    serve_parser.add_argument("--port", type=int, help="HTTP port, instead of the config's")
    serve_parser.add_argument("--model", help="checkpoint directory or model id, instead of the config's")
    serve_parser.add_argument("--timeout", type=float, default=900, help="seconds to wait until all stages answer")
    options = parser.parse_args(argv)
    try:
        config = read_config(options.config)
        arguments = config["applications"][0].setdefault("args", {})
        if options.model:
            arguments["model"] = str(_model(options.model))
        # Once and with progress, before five processes ask for the same files.
        CheckpointDirectory(resolve_model(AppArgs.model_validate(arguments).model_source())).verify()
    except (DeployError, CheckpointError, ValidationError) as error:
        print(f"The service could not start.\n{error}", file=sys.stderr)
        return 1
    began = time.monotonic()

    def progress(line: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {line}", file=sys.stderr, flush=True)

    try:
        progress("starting Ray")
        service = start(config, port=options.port, timeout_s=options.timeout, progress=progress)
        # Ray sets a handler of its own while it starts.
        signal.signal(signal.SIGTERM, _interrupt)
        _announce(service, time.monotonic() - began)
        signal.pause()
    except DeployError as error:
        print(f"The service could not start.\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
    finally:
        stop()
    return 0


def _model(given: str) -> str | Path:
    """A folder is meant from where the command is run; anything else is a model id."""
    return Path(given).resolve() if Path(given).is_dir() else given


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _announce(service: LocalService, seconds: float) -> None:
    print(
        f"Ready after {seconds:.0f} s at {service.url} (Ctrl-C stops it). Try:\n"
        f"  curl -s {service.url}/v1/audio/voices\n"
        f"  curl -s {service.url}/v1/audio/speech -H 'Content-Type: application/json' \\\n"
        '    -d \'{"input": "Good morning, how are you today.", "voice": "demo_female", "stream": false}\' \\\n'
        "    -o hello.wav",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
