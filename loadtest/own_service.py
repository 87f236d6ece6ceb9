"""A service of this machine's own for a measurement: started as users start it, on a free port, and ended again."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from loadtest.errors import UnreachableError

ROOT = Path(__file__).resolve().parent.parent
_END_S = 60


@contextmanager
def own_service(config: Path) -> Iterator[str]:
    """URL of a service that is ready and runs by this Serve config. Raises UnreachableError with its own words when
    it does not start."""
    port = _free_port()
    command = [sys.executable, "-m", "deployments", "serve", "--config", str(config), "--port", str(port)]
    with (
        TemporaryFile("w+") as told,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told, text=True, cwd=ROOT) as process,
    ):
        assert process.stdout is not None
        try:
            # It says so on its output when all stages answer, and closes it when it gives up.
            if not process.stdout.readline().startswith("Ready"):
                process.wait(timeout=_END_S)
                told.seek(0)
                raise UnreachableError(f"the service did not start:\n{told.read()[-2000:]}")
            yield f"http://127.0.0.1:{port}"
        finally:
            if process.poll() is None:
                # Not an interrupt: a process that was started in the background ignores those, and its children too.
                process.terminate()
                try:
                    process.wait(timeout=_END_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
