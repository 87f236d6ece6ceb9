"""What set-up decides before it changes anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tools import setup_choices as choices

ROOT = Path(__file__).parents[2]


def script(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


class Machine:
    """Device nodes, kernel entries and a PATH of our own."""

    def __init__(self, folder: Path) -> None:
        self.dev, self.proc, self.bin = folder / "dev", folder / "proc", folder / "bin"
        for part in (self.dev, self.proc, self.bin):
            part.mkdir()

    def device(self, **environ: str) -> str:
        return choices.detect_device({"PATH": str(self.bin), **environ}, self.dev, self.proc)

    def with_driver(self) -> None:
        (self.proc / "driver/nvidia").mkdir(parents=True)
        (self.proc / "driver/nvidia/version").touch()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_machine_without_driver_is_cpu(machine: Machine) -> None:
    assert machine.device() == "cpu"


def test_driver_and_card_are_gpu(machine: Machine) -> None:
    machine.with_driver()
    (machine.dev / "nvidia0").touch()
    assert machine.device() == "gpu"


def test_container_that_sees_the_driver_but_no_card_is_cpu(machine: Machine) -> None:
    machine.with_driver()
    (machine.dev / "nvidiactl").touch()
    assert machine.device() == "cpu"


@pytest.mark.parametrize(
    ("answer", "device"),
    [
        ("echo 'GPU 0: NVIDIA H200 (UUID: x)'", "gpu"),
        ("echo 'No devices were found'; exit 6", "cpu"),
        ("exit 9", "cpu"),
        ("true", "cpu"),
    ],
)
def test_nvidia_smi_is_asked_where_the_kernel_shows_nothing(machine: Machine, answer: str, device: str) -> None:
    script(machine.bin, "nvidia-smi", answer)
    assert machine.device() == device


def test_environment_overrides_what_is_found(machine: Machine) -> None:
    script(machine.bin, "nvidia-smi", "echo 'GPU 0: NVIDIA H200'")
    assert machine.device(COSYVOICE_DEVICE="cpu") == "cpu"
    assert machine.device(COSYVOICE_DEVICE=" GPU ") == "gpu"
    with pytest.raises(choices.SetupError, match="allowed: cpu, gpu"):
        machine.device(COSYVOICE_DEVICE="tpu")


def test_torch_pin_is_read_from_the_project() -> None:
    pin = choices.torch_pin((ROOT / "pyproject.toml").read_text())
    assert pin.count(".") == 2 and pin.replace(".", "").isdigit()
    with pytest.raises(choices.SetupError, match="pin torch exactly"):
        choices.torch_pin('dependencies = ["torch>=2"]')


CUDA = ["filelock", 'nvidia-cudnn-cu13==9.20; platform_system == "Linux"']
CUDA_ON_X86 = ['cuda-toolkit==13.0; platform_system == "Linux" and platform_machine == "x86_64"']


@pytest.mark.parametrize(
    ("version", "requires", "system", "machine", "build"),
    [
        ("2.13.0+cpu", [], "Linux", "x86_64", "cpu"),
        ("2.13.0+cu130", [], "Linux", "x86_64", "gpu"),
        ("2.13.0", CUDA, "Linux", "x86_64", "gpu"),
        ("2.13.0", ["filelock", "sympy>=1.13"], "Linux", "x86_64", "cpu"),
        ("2.13.0", CUDA_ON_X86, "Linux", "x86_64", "gpu"),
        ("2.13.0", CUDA_ON_X86, "Linux", "aarch64", "cpu"),
        ("2.13.0", CUDA, "Darwin", "arm64", "cpu"),
    ],
)
def test_build_is_told_by_version_and_requirements(
    version: str, requires: list[str], system: str, machine: str, build: str
) -> None:
    assert choices.build_of(version, requires, system, machine) == build


def test_cpu_torch_comes_from_the_configured_index_before_pytorchs_own() -> None:
    sources = choices.torch_sources("cpu", "Linux", "2.13.0", "https://mirror")
    assert [(source.requirement, source.index) for source in sources[:2]] == [
        ("torch==2.13.0+cpu", None),
        ("torch==2.13.0+cpu", "https://mirror"),
    ]
    assert all(source.demand == "cpu" for source in sources if "+cpu" not in source.requirement)


def test_mac_takes_the_plain_wheel() -> None:
    assert [source.requirement for source in choices.torch_sources("cpu", "Darwin", "2.13.0", "x")] == ["torch==2.13.0"]


def test_gpu_accepts_nothing_unseen() -> None:
    assert all(source.demand == "gpu" for source in choices.torch_sources("gpu", "Linux", "2.13.0", "x"))


def test_running_interpreter_is_taken_when_supported() -> None:
    assert choices.find_python((3, 12), exact=False) == sys.executable


def test_unsupported_interpreter_looks_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(choices.SetupError, match=r"3\.11 to 3\.13 is needed and this is 3\.9"):
        choices.find_python((3, 9), exact=False)
    script(tmp_path, "python3.11", "exit 127")
    working = script(tmp_path, "python3.12", "exit 0")
    assert choices.find_python((3, 9), exact=False) == str(working)
    with pytest.raises(choices.SetupError, match="make setup PYTHON="):
        choices.find_python((3, 9), exact=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('dependencies = ["torch==2.13.0"]\n')
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    stamp = {"key": choices.setup_key(tmp_path, "3.11.7", "cpu")}
    (tmp_path / ".venv" / "setup.json").write_text(json.dumps(stamp))
    return tmp_path


def test_stamped_environment_is_up_to_date(project: Path) -> None:
    assert choices.up_to_date(project, project / ".venv", "cpu", None)
    assert choices.up_to_date(project, project / ".venv", "cpu", (3, 11))


def test_other_device_or_python_is_not_up_to_date(project: Path) -> None:
    assert not choices.up_to_date(project, project / ".venv", "gpu", None)
    assert not choices.up_to_date(project, project / ".venv", "cpu", (3, 12))
    (project / ".venv" / "pyvenv.cfg").write_text("version = 3.11.8\n")
    assert not choices.up_to_date(project, project / ".venv", "cpu", None)


def test_changed_project_is_not_up_to_date(project: Path) -> None:
    with (project / "pyproject.toml").open("a") as file:
        file.write("# one more line\n")
    assert not choices.up_to_date(project, project / ".venv", "cpu", None)


def test_moved_project_is_not_up_to_date(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = tmp_path_factory.mktemp("elsewhere") / "clone"
    project.rename(moved)
    assert not choices.up_to_date(moved, moved / ".venv", "cpu", None)


@pytest.mark.parametrize("stamp", ["", "[]", "{", '{"key": "old"}'])
def test_broken_or_old_stamp_is_not_up_to_date(project: Path, stamp: str) -> None:
    (project / ".venv" / "setup.json").write_text(stamp)
    assert not choices.up_to_date(project, project / ".venv", "cpu", None)


def test_environment_whose_interpreter_is_gone_is_not_up_to_date(project: Path) -> None:
    (project / ".venv" / "bin" / "python").unlink()
    (project / ".venv" / "bin" / "python").symlink_to(project / "gone")
    assert choices.venv_python(project / ".venv") is None
    assert not choices.up_to_date(project, project / ".venv", "cpu", None)
