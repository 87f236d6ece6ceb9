"""`python -m tests.placement CONFIG`: the deployments of a Serve config on nodes and cards that exist on paper only.

Scheduling is Ray's own: fractions, pools, bounds per node and surges are those of the config. Replicas compute the demo
checkpoint on this machine's CPU, since the cards are none. Then a node is emptied as Kubernetes would have it before it
takes the pod away (`ray drain-node`), while somebody listens.
"""

from __future__ import annotations

import argparse
import copy
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client

from deployments.client import CosyVoiceClient
from deployments.local import read_config, start, stop

NODES: dict[str, list[dict[str, Any]]] = {
    "four_gpus": [{"num_gpus": 4}],
    "heterogeneous": [
        *[{"resources": {"front": 1}}] * 3,
        *[{"resources": {"language_model": 1}, "num_gpus": 1}] * 2,
        *[{"resources": {"acoustic": 1}, "num_gpus": 1}] * 3,
    ],
    "cpu_cluster": [{}] * 3,
}
"""Nodes beside the head: as few as the config asks for, and one more where a node is emptied."""

_TEXT = "The weather will be fine tomorrow in the morning. " * 6


def on_paper(config: dict[str, Any]) -> dict[str, Any]:
    """The config with a model that a CPU can compute, everything else as it stands."""
    changed = copy.deepcopy(config)
    app = changed["applications"][0]
    app["args"] = {
        **read_config(Path("serve_config.yaml"))["applications"][0]["args"],
        "lm": {"engine": "torch", "max_sequences": 64},
    }
    changed["http_options"]["host"] = "127.0.0.1"
    return changed


def lying() -> dict[str, Counter[str]]:
    """Replicas by node and deployment, those included that start or end."""
    details = _get_global_client().get_serve_details()
    found: dict[str, Counter[str]] = {}
    for name, deployment in details["applications"]["cosyvoice"]["deployments"].items():
        for replica in deployment["replicas"]:
            if replica.get("node_id") is not None:
                found.setdefault(str(replica["node_id"]), Counter())[name] += 1
    return found


def drain(stage: str) -> dict[str, Any]:
    """Empty a node with a replica of `stage` that somebody listens to; says what was heard and how long it took."""
    before = lying()
    node = next(node for node, replicas in before.items() if replicas[stage])
    client, heard = CosyVoiceClient(), []

    def listen() -> None:
        with client.speak(_TEXT, voice="demo_female", seed=1) as stream:
            heard.append(sum(len(chunk) for chunk in stream) / 24_000)

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(3.0)
    began = time.monotonic()
    address = ray.get_runtime_context().gcs_address
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", address, "--node-id", node]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "pod ends"]
    subprocess.run([*command, "--deadline-remaining-seconds", "510"], check=True, capture_output=True)
    while node in lying() and time.monotonic() - began < 150:
        time.sleep(0.5)
    empty_s = time.monotonic() - began
    listener.join()
    after = lying()
    return {
        "left": dict(before[node]),
        "still_there": dict(after.get(node, {})),
        "empty_after_s": round(empty_s, 1),
        "heard_s": heard,
        "after": [dict(replicas) for replicas in after.values()],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.placement", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--drain", metavar="STAGE", help="empty a node that holds a replica of this deployment")
    options = parser.parse_args()
    config = on_paper(read_config(options.config))
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}, shutdown_at_exit=False
    )
    try:
        for node in NODES[options.config.stem]:
            cluster.add_node(num_cpus=16, **node)
        ray.init(address=cluster.address, namespace="serve", log_to_driver=False)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        began = time.monotonic()
        start(config, port=port, timeout_s=200)
        result: dict[str, Any] = {"config": str(options.config), "ready_after_s": round(time.monotonic() - began, 1)}
        result["nodes"] = [dict(replicas) for replicas in lying().values()]
        if options.drain:
            result["drained"] = drain(options.drain)
        print(json.dumps(result, indent=1))
    finally:
        stop()
        cluster.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
