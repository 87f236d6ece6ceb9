"""The service on this machine: a Ray of its own, the application from a Serve config, ready or a clear failure.

The only place that reaches into Serve's client, whose config deployment has no public Python call in Ray 2.60.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, ServeDeploySchema, ServeStatus

from deployments.ingress.official_grpc.door import SERVICER
from deployments.live_args import check_user_configs

_APPLICATION = "deployments.app:build"
_POLL_S = 0.25
_MOST_GRPC_BYTES = 32 * 2**20
"""Of one message; no less than `limits.max_body_bytes` is by default."""

_FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)


class DeployError(RuntimeError):
    """The application did not come up; says what Serve says of it."""


@dataclass(frozen=True, slots=True)
class LocalService:
    """A running service of this process's own Ray."""

    app_name: str
    host: str
    port: int
    grpc_port: int | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


def read_config(path: Path) -> dict[str, Any]:
    """A Serve config as plain data; Serve's own schema checks it when it is deployed.

    Raises DeployError when there is no such file, or it is no YAML with an application in it.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeployError(f"{path}: cannot be read ({error.strerror}); give a Serve config with --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DeployError(f"{path}: no YAML ({' '.join(str(error).split())})") from error
    applications = config.get("applications") if isinstance(config, dict) else None
    if not isinstance(applications, list) or not applications or not isinstance(applications[0], dict):
        raise DeployError(f"{path}: no Serve config; expected a list `applications` with the application in it")
    found: dict[str, Any] = config
    return found


def start(
    config: dict[str, Any],
    *,
    host: str | None = None,
    port: int | None = None,
    grpc_port: int | None = None,
    ray_options: dict[str, Any] | None = None,
    timeout_s: float = 600,
    progress: Callable[[str], None] = lambda _line: None,
) -> LocalService:
    """Start Ray and Serve here, deploy the config's application and wait until all stages answer.

    grpc_port: also for clients of CosyVoice's own gRPC server, on all addresses (Serve has no other way), see
    docs/security.md; without it as `grpc_options` of the config say, which is not at all by default.
    Raises DeployError when the port is taken, or with the application's own message when it cannot start.
    """
    http = dict(config.get("http_options", {}))
    if port is not None:
        http["port"] = port
    if host is not None:
        http["host"] = host
    listen, bound = http.setdefault("host", "127.0.0.1"), http.setdefault("port", 8000)
    _require_free(listen, bound, "--port")
    grpc = dict(config.get("grpc_options", {}))
    if grpc_port is not None:
        grpc |= {"port": grpc_port, "grpc_servicer_functions": [SERVICER]}
    _check(config)
    schema = ServeDeploySchema.model_validate({**config, "http_options": http, "grpc_options": grpc})
    answers_grpc = bool(schema.grpc_options.grpc_servicer_functions)
    if answers_grpc:
        _require_free("", schema.grpc_options.port, "--grpc-port")
    app_name = schema.applications[0].name
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Serve's own limit is 2 GiB, which its proxy would hold.
        os.environ.setdefault("RAY_SERVE_GRPC_MAX_MESSAGE_SIZE", str(_MOST_GRPC_BYTES))
        # Otherwise Ray joins whatever cluster it finds a trace of on this machine, be it gone or another's.
        options = {"address": "local", **(ray_options or {})}
        ray.init(namespace="serve", include_dashboard=False, log_to_driver=False, **options)
    serve.start(proxy_location=schema.proxy_location, http_options=http, grpc_options=grpc)
    _get_global_client().deploy_apps(schema)
    _wait(app_name, timeout_s, progress)
    return LocalService(app_name, listen, bound, schema.grpc_options.port if answers_grpc else None)


def _require_free(host: str, port: int, option: str) -> None:
    """Serve's proxy would only log that it cannot listen, and the service would look ready."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DeployError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another with {option}"
            ) from None


def redeploy(config: dict[str, Any], *, timeout_s: float = 600) -> None:
    """Change the running application to what a config says, without cutting streams, and wait until it is so.

    Raises DeployError as `start` does; a `user_config` that a replica would refuse is refused here before.
    """
    _check(config)
    schema = ServeDeploySchema.model_validate(config)
    _get_global_client().deploy_apps(schema)
    _wait(schema.applications[0].name, timeout_s, lambda _line: None)


def _check(config: dict[str, Any]) -> None:
    for application in config["applications"]:
        if application.get("import_path") == _APPLICATION:
            try:
                check_user_configs(application)
            except ValueError as error:
                raise DeployError(str(error)) from None


def stop() -> None:
    """End the application, Serve and this process's Ray."""
    if ray.is_initialized():
        serve.shutdown()
        ray.shutdown()


def _wait(app_name: str, timeout_s: float, progress: Callable[[str], None]) -> None:
    deadline = time.monotonic() + timeout_s
    told = ""
    while True:
        status = serve.status()
        app = status.applications.get(app_name)
        if app is not None:
            if app.status is ApplicationStatus.RUNNING:
                return
            if app.status in _FAILED:
                raise DeployError(_explain(status, app_name))
            line = ", ".join(f"{name} {state.status.value.lower()}" for name, state in app.deployments.items())
            if line != told:
                progress(line)
                told = line
        if time.monotonic() > deadline:
            raise DeployError(f"not ready after {timeout_s:g} s; {_explain(status, app_name)}")
        # Serve has no call that waits for a deployment; this runs at start-up only.
        time.sleep(_POLL_S)


def _explain(status: ServeStatus, app_name: str) -> str:
    app = status.applications.get(app_name)
    if app is None:
        return f"application {app_name!r} is unknown to Serve"
    parts = [f"application {app_name!r} is {app.status.value}: {app.message}".rstrip(": ")]
    parts += [f"{name}: {state.message}" for name, state in app.deployments.items() if state.message]
    return "\n".join(parts)
