"""A Ray cluster of several nodes on this machine, with GPUs that exist on paper only, and the service on it.

A double of machines, not of parts: nodes, raylets, controller, replicas and their deaths are Ray's own, and the stages
compute on the CPU. There is no other way to lose a machine in a test.
"""

from __future__ import annotations

import copy
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from ray._private.node import Node
from ray.cluster_utils import Cluster

from cosyvoice_core.bench.measure import Machine
from deployments.local import LocalService, read_config, start, stop

CONFIG = Path(__file__).parents[1] / "serve_config.yaml"
_CPUS = 4
_ENVIRONMENT = {
    # Ray would tell the policy of work every ten seconds only.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # As docs/operations.md has it for clusters.
    "RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def _processes(node: Node) -> list[psutil.Process]:
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def _send(signal_: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal_)


class FakeCluster:
    """Head node without GPUs, and workers with one each."""

    def __init__(self, workers: int) -> None:
        # Socket names are limited to 107 bytes, so the folder must be short.
        self._folder = tempfile.mkdtemp(prefix="cv", dir="/tmp")
        head = {"num_cpus": _CPUS, "include_dashboard": False, "temp_dir": self._folder}
        self._cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        self.workers = [self._cluster.add_node(num_cpus=_CPUS, num_gpus=1) for _ in range(workers)]
        ray.init(address=self._cluster.address, namespace="serve", log_to_driver=False)

    def lose(self, number: int) -> None:
        """A worker is gone with all that ran on it, without a word; another comes in its place."""
        node = self._replace(number)
        # Ray kills the node's own processes only, and those of actors notice some time later; a lost machine is lost at
        # once.
        _send(signal.SIGKILL, _processes(node))
        self._cluster.remove_node(node, allow_graceful=False)

    def lose_raylet(self, number: int) -> None:
        """Ray's own processes of a worker are gone, and the replicas on it find out by themselves."""
        self._cluster.remove_node(self._replace(number), allow_graceful=False)

    def freeze(self, number: int) -> Callable[[], None]:
        """A worker falls silent with all connections open, as when its network is cut off; another comes in its place.

        Returns what ends the silent processes.
        """
        node = self._replace(number)
        processes = _processes(node)
        _send(signal.SIGSTOP, processes)

        def end() -> None:
            _send(signal.SIGKILL, processes)
            self._cluster.remove_node(node, allow_graceful=False)

        return end

    def _replace(self, number: int) -> Node:
        node = self.workers.pop(number)
        self.workers.append(self._cluster.add_node(num_cpus=_CPUS, num_gpus=1))
        return node

    def shutdown(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def service_config(deployments: dict[str, dict[str, Any]], args: dict[str, Any], **application: Any) -> dict[str, Any]:
    """The one-machine default with some keys of deployments, arguments and the application changed."""
    config = copy.deepcopy(read_config(CONFIG))
    app = config["applications"][0]
    app |= application
    # Listeners wait as long as they must: what is refused under load is `tests.overload`'s matter.
    app["args"] |= {"admission": {"max_first_audio_s": 300}, **args}
    for deployment in app["deployments"]:
        deployment |= deployments.get(deployment["name"], {})
    return config


def origin(name: str) -> dict[str, object]:
    """Where figures of `python -m tests.NAME` come from."""
    return {
        "machine": asdict(Machine.here(torch.device("cpu"))),
        "ray": ray.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": " ".join(["python", "-m", f"tests.{name}", *sys.argv[1:]]),
    }


@contextmanager
def fake_cluster(workers: int, config: dict[str, Any]) -> Iterator[tuple[FakeCluster, LocalService]]:
    """The service on a cluster of its own, all of which is gone afterwards."""
    kept = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    cluster = FakeCluster(workers)
    # Else a time limit from outside would leave all nodes behind. Ray sets a handler of its own while it starts.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield cluster, start(config, port=free_port())
    finally:
        stop()
        cluster.shutdown()
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
