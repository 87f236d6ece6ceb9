"""What a measurement is: wall time and memory of one step, on the machine that is named with it."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import device as Device  # a field below is called torch

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Machine:
    """Where figures were taken."""

    processor: str
    cores: int
    accelerator: str
    python: str
    torch: str
    threads: int

    @classmethod
    def here(cls, device: Device) -> Machine:
        cuda = device.type == "cuda"
        return cls(
            processor=_processor(),
            cores=os.cpu_count() or 1,
            accelerator=torch.cuda.get_device_name(device) if cuda else "none",
            python=platform.python_version(),
            torch=torch.__version__,
            threads=torch.get_num_threads(),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One measured step: seconds, memory held by the process after it (MiB), and what it made."""

    name: str
    seconds: float
    host_mib: float
    device_mib: float
    audio_s: float | None = None

    @property
    def real_time_factor(self) -> float | None:
        return None if not self.audio_s else self.seconds / self.audio_s


@dataclass(slots=True)
class Measurement:
    """Steps of one run."""

    title: str
    device: Device
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, audio_s: float | None = None) -> Iterator[None]:
        """Measure what runs inside; work still queued on the device is waited for."""
        print(f"{name} ...", file=sys.stderr, flush=True)
        began = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - began
        self.steps.append(Step(name, seconds, _host_mib(), _device_mib(self.device), audio_s))

    def render(self) -> str:
        """A table for people."""
        rows = [f"{self.title}", f"{'step':<38}{'seconds':>9}{'RTF':>8}{'host MiB':>10}{'device MiB':>12}"]
        for step in self.steps:
            factor = "" if step.real_time_factor is None else f"{step.real_time_factor:.3f}"
            rows.append(f"{step.name:<38}{step.seconds:>9.2f}{factor:>8}{step.host_mib:>10.0f}{step.device_mib:>12.0f}")
        rows.append(f"peak of the process: {_peak_mib():.0f} MiB")
        return "\n".join(rows)

    def write(self, path: Path) -> None:
        """The same as JSON, with machine, versions, date and command."""
        record = {
            "title": self.title,
            **provenance(self.device),
            "peak_host_mib": _peak_mib(),
            "steps": [asdict(step) | {"real_time_factor": step.real_time_factor} for step in self.steps],
        }
        path.write_text(json.dumps(record, indent=1) + "\n")


def provenance(device: Device) -> dict[str, object]:
    """Machine, versions, date and command, as they stand beside figures."""
    return {
        "machine": asdict(Machine.here(device)),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": " ".join(["python", "-m", "cosyvoice_core.bench", *sys.argv[1:]]),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _host_mib() -> float:
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return _peak_mib()
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MIB


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _device_mib(device: Device) -> float:
    return torch.cuda.memory_allocated(device) / _MIB if device.type == "cuda" else 0.0
