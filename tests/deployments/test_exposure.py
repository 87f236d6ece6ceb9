"""Where strangers could reach the service, it says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deployments import exposure


@pytest.mark.parametrize(
    ("host", "environment", "keyed", "says"),
    [
        ("127.0.0.1", {}, False, []),
        ("localhost", {}, False, []),
        ("::1", {"RAY_SERVE_ENABLE_HA_PROXY": "0"}, False, []),
        ("0.0.0.0", {}, True, []),
        ("0.0.0.0", {}, False, ["listens on 0.0.0.0"]),
        ("::", {}, False, ["listens on ::"]),
        ("example.com", {}, False, ["listens on example.com"]),
        (None, {}, False, []),
        (None, {"RAY_SERVE_ENABLE_HA_PROXY": "1"}, True, ["RAY_SERVE_ENABLE_HA_PROXY"]),
        ("127.0.0.1", {"RAY_SERVE_ENABLE_DIRECT_INGRESS": "1"}, False, ["and set API keys"]),
        ("0.0.0.0", {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}, False, ["listens on 0.0.0.0", "ALL addresses"]),
    ],
)
def test_a_service_that_strangers_reach_says_so(
    host: str | None, environment: dict[str, str], keyed: bool, says: list[str]
) -> None:
    found = exposure.warnings(host, environment, keyed=keyed)
    assert len(found) == len(says)
    for line, part in zip(found, says, strict=True):
        assert part in line


def test_grpc_for_all_without_keys_says_so() -> None:
    assert "gRPC" in exposure.warnings("127.0.0.1", {}, keyed=False, grpc_from_anywhere=True)[0]
    assert exposure.warnings("127.0.0.1", {}, keyed=True, grpc_from_anywhere=True) == []


@pytest.mark.parametrize("config", ["serve_config.yaml", "config/gpu.yaml", "config/four_gpus.yaml"])
def test_on_one_machine_the_service_listens_there_only(config: str) -> None:
    found = yaml.safe_load((Path(__file__).parents[2] / config).read_text())
    assert exposure.is_loopback(found["http_options"]["host"])
    # Serve has no host for gRPC.
    assert "grpc_options" not in found
