"""A service in a process of its own with JSON logs and traces, and what receives the traces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

ROOT = Path(__file__).parents[2]
START_S = 300


@dataclass
class Collector:
    """An OTLP endpoint that keeps the spans it is sent."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)

    def of_trace(self, trace_id: bytes) -> list[Span]:
        return [span for span in list(self.spans) if span.trace_id == trace_id]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    collector.spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    collector.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class ObservedService:
    url: str
    logs: Path
    ray: Path
    collector: Collector

    def lines(self, **wanted: object) -> list[dict[str, Any]]:
        """Records of all replicas' logs that have these fields."""
        found = []
        for path in sorted(self.logs.glob("replica_*.log")):
            # What follows the last line's end is still being written.
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                record = json.loads(line)
                if wanted.items() <= record.items():
                    found.append(record)
        return found

    def metrics(self) -> str:
        """What the node's metrics port shows."""
        port_file = next((self.ray / "ray" / "session_latest").glob("metrics_export_port_*"))
        with urlopen(f"http://127.0.0.1:{port_file.read_text()}/metrics", timeout=10) as page:
            shown: str = page.read().decode()
        return shown


@contextmanager
def observed_service(folder: Path, port: int) -> Iterator[ObservedService]:
    """folder: short, as socket names are limited to 107 bytes. The torch engine, which is ready sooner than vLLM."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    logs = folder / "logs"
    config["logging_config"] = {"encoding": "JSON", "logs_dir": str(logs)}
    config["applications"][0]["args"]["lm"] = {"engine": "torch"}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with collecting() as collector:
        environment = os.environ | {
            "RAY_TMPDIR": str(folder),
            "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": "deployments.tracing:exporters",
            "RAY_SERVE_TRACING_SAMPLING_RATIO": "1.0",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "RAY_SERVE_LOG_TO_STDERR": "0",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "deployments", "serve", "--config", str(path), "--port", str(port)]
        with (folder / "service.log").open("w") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            service = ObservedService(f"http://127.0.0.1:{port}", logs, folder, collector)
            _wait_until_ready(service, process, folder / "service.log")
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def _wait_until_ready(service: ObservedService, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{service.url}/ready", timeout=30).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text())
