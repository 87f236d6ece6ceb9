"""The wheel holds every module and the data that modules read, and runs without the project's folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cosyvoice_core", "deployments", "loadtest")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no leftover of an earlier build slips in and none is left."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in (*PACKAGES, "tools", "tests/project", "config"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; build_wheel(__import__('sys').argv[1])"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=copy, check=True, capture_output=True, timeout=300)
    (built,) = out.glob("*.whl")
    return built


def test_it_holds_every_module_and_its_data_and_nothing_else(wheel: Path) -> None:
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files == source


def test_its_commands_run_elsewhere(wheel: Path, tmp_path: Path, demo_checkpoint: Path) -> None:
    """A checkpoint and a Serve config do not come with it; their lack is told in a line."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        # -P keeps the project's folder, from which tests may be run, out of the path.
        program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import runpy; sys.argv = {list(arguments)!r}; "
        program += f"runpy.run_module({arguments[0]!r}, run_name='__main__')"
        return subprocess.run(
            [sys.executable, "-P", "-c", program],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    assert run("cosyvoice_core", "inspect", str(demo_checkpoint)).stdout.rstrip().endswith("sound")
    without_model = run("cosyvoice_core", "speak", "Hello.", "--voice", "demo_male")
    assert without_model.stderr.startswith("error: model ")
    without_config = run("deployments", "serve")
    assert "give a Serve config with --config" in without_config.stderr
    assert str(tmp_path) in without_config.stderr
    assert "Traceback" not in without_model.stderr + without_config.stderr
