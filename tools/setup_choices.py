"""What set-up decides before it changes anything: device, interpreter, where torch comes from, whether to run.

Standard library only. Knows neither pip nor how a virtual environment is made; `setup_steps` does the work.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SUPPORTED = ((3, 11), (3, 13))
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_INDEX = "https://download.pytorch.org/whl/cu130"


class SetupError(RuntimeError):
    """Set-up cannot go on; the message says what to do."""


class Source:
    """One place torch may come from: a requirement, the index that replaces the configured one, and a demand.

    `demand` is the build (`cpu` or `gpu`) the wheel found there must turn out to be; None where the requirement
    itself settles it.
    """

    def __init__(self, requirement: str, where: str, index: str | None = None, demand: str | None = None) -> None:
        self.requirement, self.where, self.index, self.demand = requirement, where, index, demand

    @property
    def pip_args(self) -> list[str]:
        return ["--no-deps", *(["--index-url", self.index] if self.index else []), self.requirement]


def detect_device(environ: Mapping[str, str], dev: Path = Path("/dev"), proc: Path = Path("/proc")) -> str:
    """`cpu` or `gpu`: COSYVOICE_DEVICE, else whether an NVIDIA driver with at least one card answers."""
    wanted = environ.get("COSYVOICE_DEVICE", "").strip().lower()
    if wanted:
        if wanted not in ("cpu", "gpu"):
            raise SetupError(f"COSYVOICE_DEVICE is {wanted!r}; allowed: cpu, gpu")
        return wanted
    # A container without cards still sees the host's /proc entry, hence the device nodes.
    if (proc / "driver/nvidia/version").exists() and any(dev.glob("nvidia[0-9]*")):
        return "gpu"
    query = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if query is None:
        return "cpu"
    try:
        listed = subprocess.run([query, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "gpu" if listed.returncode == 0 and "GPU 0" in listed.stdout else "cpu"


def torch_pin(pyproject: str) -> str:
    """The exact torch release that the text of pyproject.toml demands."""
    found = re.search(r'"torch==([^"+;]+)"', pyproject)
    if found is None:
        raise SetupError('pyproject.toml must pin torch exactly ("torch==X.Y.Z")')
    return found[1]


def torch_sources(device: str, system: str, pin: str, cpu_index: str) -> list[Source]:
    """Where to look for torch, best first."""
    configured = "the package index as pip is configured"
    if device == "gpu":
        return [
            Source(f"torch=={pin}", configured, demand="gpu"),
            # `===` compares as text: it passes over a CPU wheel, whose local version would otherwise win.
            Source(f"torch==={pin}", f"{configured}, leaving out tagged builds", demand="gpu"),
            Source(f"torch=={pin}", CUDA_INDEX, index=CUDA_INDEX, demand="gpu"),
        ]
    if system != "Linux":
        return [Source(f"torch=={pin}", configured)]
    return [
        Source(f"torch=={pin}+cpu", configured),
        Source(f"torch=={pin}+cpu", cpu_index, index=cpu_index),
        Source(f"torch=={pin}", f"{configured}, including untagged builds", demand="cpu"),
    ]


def build_of(version: str, requires: Sequence[str], system: str, machine: str) -> str:
    """`gpu` when a torch wheel is a CUDA build: by its local version, else by what it requires on this machine."""
    local = version.partition("+")[2]
    if local:
        return "cpu" if local.startswith("cpu") else "gpu"
    if system != "Linux":
        return "cpu"
    for requirement in requires:
        name, _, marker = requirement.partition(";")
        machines = re.findall(r"platform_machine\s*==\s*[\"']([^\"']+)", marker)
        if re.match(r"(nvidia|cuda)\b", name) and (not machines or machine in machines):
            return "gpu"
    return "cpu"


def supported(version: tuple[int, int]) -> bool:
    """Whether the dependencies have wheels for this Python."""
    return SUPPORTED[0] <= version <= SUPPORTED[1]


def find_python(current: tuple[int, int], exact: bool) -> str:
    """Path of the interpreter to build on: the running one if supported, else the first such on PATH."""
    if supported(current):
        return sys.executable
    if not exact:
        for minor in range(SUPPORTED[0][1], SUPPORTED[1][1] + 1):
            path = shutil.which(f"python3.{minor}")
            # A version manager's shim exists for interpreters it does not have, and fails when run.
            if path and subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
                return path
    low, high, running = (".".join(map(str, version)) for version in (*SUPPORTED, current))
    raise SetupError(
        f"Python {low} to {high} is needed and this is {running}; name one: make setup PYTHON=/path/to/python3"
    )


def venv_python(venv: Path) -> str | None:
    """Version (`3.11.7`) of an environment whose interpreter still exists, else None."""
    config = venv / "pyvenv.cfg"
    if not config.is_file() or not (venv / "bin/python").exists():
        return None
    found = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)", config.read_text(), re.MULTILINE)
    return found[1] if found else None


def minor_of(version: str) -> tuple[int, int]:
    """(3, 11) of `3.11.7`."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def setup_key(root: Path, python: str, device: str) -> str:
    """Changes when anything does that decides what an environment holds: an editable install knows `root`, too."""
    digest = hashlib.sha256()
    for part in (root / "pyproject.toml", *sorted(Path(__file__).parent.glob("setup_*.py"))):
        digest.update(part.read_bytes())
    digest.update("\0".join((python, device, str(root))).encode())
    return digest.hexdigest()


def read_stamp(venv: Path) -> dict[str, object]:
    """What the last complete set-up wrote; empty when there was none."""
    try:
        stamp = json.loads((venv / "setup.json").read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def up_to_date(root: Path, venv: Path, device: str, exact: tuple[int, int] | None) -> bool:
    """Whether the last set-up still holds; `exact` is the Python that the caller insists on, if any."""
    python = venv_python(venv)
    if python is None or (exact is not None and minor_of(python) != exact):
        return False
    return read_stamp(venv).get("key") == setup_key(root, python, device)
