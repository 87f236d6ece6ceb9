"""One Ray of this process's own with the five deployments, shared by all cluster tests of a session."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.client import CosyVoiceClient
from deployments.local import LocalService, read_config, start, stop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def deployed_config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `service` was deployed from."""
    config = read_config(Path(__file__).parents[2] / "serve_config.yaml")
    # Many tests speak more at once than a small machine can in time; that they wait is tested in test_overload.
    config["applications"][0]["args"]["admission"] = {"max_first_audio_s": 300, "max_files": 64}
    config["applications"][0]["args"]["voices"] = {"url": str(tmp_path_factory.mktemp("voices"))}
    return config


@pytest.fixture(scope="session")
def service(deployed_config: dict[str, Any]) -> Iterator[LocalService]:
    # Socket names are limited to 107 bytes, so the folder must be short.
    folder = tempfile.mkdtemp(prefix="cv", dir="/tmp")
    try:
        yield start(deployed_config, port=free_port(), ray_options={"num_cpus": 4, "_temp_dir": folder})
    finally:
        stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def prompts(demo_checkpoint: Path) -> Path:
    """Folder of recordings, each with its transcript."""
    return demo_checkpoint / "prompts"


@pytest.fixture
def client(service: LocalService) -> CosyVoiceClient:
    return CosyVoiceClient(service.app_name)
