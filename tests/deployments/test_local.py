"""Starting the service on this machine: what is refused before Ray starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deployments.__main__ import main
from deployments.local import DeployError, read_config, start

CONFIG = Path(__file__).parents[2] / "serve_config.yaml"


def test_a_port_that_is_taken_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DeployError, match=f"127.0.0.1:{port}"):
            start(read_config(CONFIG), port=port)
        assert main(["serve", "--port", str(port)]) == 1
    assert "--port" in capsys.readouterr().err


def test_an_address_of_the_command_line_replaces_the_config_s(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--host", "127.0.0.2", "--port", str(port)]) == 1
    assert f"127.0.0.2:{port}" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--model", str(tmp_path)]) == 1
    assert "llm.pt" in capsys.readouterr().err


def test_an_unknown_argument_in_the_config_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.read_text().replace("model: checkpoints/demo", "modle: checkpoints/demo"))
    assert main(["serve", "--config", str(config)]) == 1
    assert "modle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read"),
        ("applications: [", "no YAML"),
        ("just words", "no Serve config"),
        ("applications: []", "no Serve config"),
    ],
)
def test_a_config_that_is_none_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, problem: str
) -> None:
    config = tmp_path / "config.yaml"
    if content is not None:
        config.write_text(content)
    assert main(["serve", "--config", str(config)]) == 1
    told = capsys.readouterr().err
    assert problem in told
    assert str(config) in told
