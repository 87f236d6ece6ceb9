"""Image and compose file: checked by their own tools, and against the files and commands they use."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.__main__ import main
from tests.config.files import ROOT, SERVE_CONFIGS

# Beside the interpreter, which need not be on PATH.
HADOLINT = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IGNORED = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def instructions(name: str) -> list[str]:
    """Arguments of an instruction, lines joined."""
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    return re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)


def ignored(path: Path) -> bool:
    relative = path.relative_to(ROOT)
    parts = [relative, *relative.parents][:-1]
    return any(
        fnmatch.fnmatch(str(part), pattern) or (pattern.startswith("**/") and fnmatch.fnmatch(part.name, pattern[3:]))
        for part in parts
        for pattern in IGNORED
    )


@pytest.mark.skipif(HADOLINT is None, reason="hadolint has no wheel for this machine")
def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    def lint(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(HADOLINT), "--no-color", str(path)], capture_output=True, text=True, check=False)

    assert lint(ROOT / "Dockerfile").stdout == ""
    careless = tmp_path / "Dockerfile"
    careless.write_text(DOCKERFILE.replace("python:3.11-slim-bookworm", "python"))
    careless.write_text(careless.read_text().replace("--no-install-recommends ", ""))
    assert "DL3015" in lint(careless).stdout


def test_the_base_is_pinned_by_tag_and_nothing_runs_as_root_in_the_end() -> None:
    (base,) = (value for value in instructions("ARG") if value.startswith("BASE="))
    assert re.fullmatch(r"BASE=python:\d+\.\d+-slim-\w+", base)
    assert [value for value in instructions("FROM") if not value.startswith(("${BASE}", "base "))] == []
    (user,) = instructions("USER")
    assert int(user.partition(":")[0]) > 0
    assert DOCKERFILE.index("\nUSER ") > max(found.start() for found in re.finditer(r"\n(?:RUN|COPY) ", DOCKERFILE))


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    sources = [words[:-1] for words in map(str.split, instructions("COPY")) if not words[0].startswith("--from")]
    named = [ROOT / source for words in sources for source in words if source != "."]
    assert named
    for path in named:
        assert path.exists(), path
        assert not ignored(path), path


def test_the_service_s_files_are_sent_and_the_rest_is_not() -> None:
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    needed = ("cosyvoice_core/", "deployments/", "loadtest/", "tools/", "config/", "checkpoints/demo/spk2info.pt")
    for name in tracked:
        if name.startswith(needed):
            assert not ignored(ROOT / name), name
        if name.startswith(("tests/", "docs/", ".ci/")):
            assert ignored(ROOT / name), name
    assert ignored(ROOT / ".venv" / "bin" / "python")
    assert ignored(ROOT / "deployments" / "__pycache__" / "app.pyc")


def test_set_up_in_the_image_is_that_of_make_setup() -> None:
    (run,) = (value for value in instructions("RUN") if "tools." in value)
    assert "python -m tools.setup_env --venv /app/.venv" in run
    assert "COSYVOICE_DEVICE=${DEVICE}" in run
    assert "tools.setup_env" in (ROOT / "Makefile").read_text()


def commands() -> list[list[str]]:
    """What containers run."""
    own = [json.loads(value) for value in instructions("CMD")]
    return own + [service["command"] for service in compose()["services"].values() if "command" in service]


@pytest.mark.parametrize("command", commands(), ids=lambda command: " ".join(command[4:]))
def test_commands_of_containers_are_ones_the_service_knows(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command[:3] == ["python", "-m", "deployments"]
    assert "0.0.0.0" in command
    named = [Path(word) for word in command if word.endswith(".yaml")]
    assert {ROOT / path for path in named} <= set(SERVE_CONFIGS)
    # The parser ends the process at a word it does not know; with a config that is missing it gets no further.
    missing = str(tmp_path / "missing.yaml")
    assert main([*command[3:], "--config", missing]) == 1
    assert missing in capsys.readouterr().err


def test_the_health_check_asks_the_door() -> None:
    (check,) = re.findall(r"HEALTHCHECK (.+?)CMD (\[.+?\])", re.sub(r"\\\n", " ", DOCKERFILE), re.DOTALL)
    assert json.loads(check[1])[-1] == "http://127.0.0.1:8000/health"
    assert "wget" in json.loads(check[1])
    assert re.search(r"apt-get install .*\bwget\b", DOCKERFILE)


def test_compose_is_valid_and_a_word_it_does_not_know_is_not() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec has no wheel for this machine")
    text = (ROOT / "compose.yaml").read_text()
    assert compose_spec.PyCompose.from_yaml(text).service_names() == ["speech", "speech-gpu"]
    with pytest.raises(ValueError, match="shm_sise"):
        compose_spec.PyCompose.from_yaml(text.replace("shm_size", "shm_sise"))


def test_containers_are_closed_to_the_outside_and_to_themselves() -> None:
    for name, service in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])
        volumes = {volume.partition(":")[0] for volume in service["volumes"]}
        assert volumes <= set(compose()["volumes"])
        assert service["build"]["args"]["DEVICE"] == service["image"].partition(":")[2]


def test_kubernetes_runs_the_image_that_is_made_here() -> None:
    images = {service["image"] for service in compose()["services"].values()}
    for path in (ROOT / "config" / "kubernetes").rglob("rayservice.yaml"):
        assert set(re.findall(r"^ +image: (\S+)$", path.read_text(), re.MULTILINE)) <= images
        user = instructions("USER")[0].partition(":")[0]
        assert f"runAsUser: {user}" in path.read_text()
