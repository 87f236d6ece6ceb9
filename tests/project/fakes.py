"""A stand-in for an environment under construction: answers like Python and pip, installs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tools.setup_steps import Environment

CUDA_REQUIRES = ["filelock", 'nvidia-cudnn-cu13==9.20; platform_system == "Linux"']


class FakeEnvironment(Environment):
    """Keeps a table of installed packages; `wheels` says what an index holds, `broken` what cannot be imported."""

    def __init__(self, folder: Path, device: str, *, dev: bool = True) -> None:
        super().__init__(folder, folder / "venv", device, dev=dev)
        self.venv.mkdir()
        self.installed: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self.requires: dict[str, list[str]] = {"2.13.0": CUDA_REQUIRES}
        self.wheels: dict[tuple[str, str], str] = {}
        self.project_fails: set[str] = set()
        self.project_moves_torch = ""
        self.pip_calls: list[list[str]] = []
        self.clients_fail = ""
        self.clients_made = 0

    def version_of(self, package: str) -> str | None:
        return self.installed.get(package)

    def site_packages(self) -> Path:
        return self.root / "site-packages"

    def run(self, *args: str, show: Callable[[str], None] | None = None) -> tuple[int, str]:
        if args[:2] == ("-m", "pip"):
            self.pip_calls.append(list(args[2:]))
            return self._pip(list(args[2:]))
        if args == ("-m", "tools.client_env"):
            self.clients_made += 1
            return (1, self.clients_fail) if self.clients_fail else (0, "made")
        code = args[1]
        if "m.requires" in code:
            version = self.installed["torch"]
            return 0, json.dumps([version, self.requires.get(version, [])])
        for module, reason in self.broken.items():
            if f"import {module}" in code or f"from {module} " in code:
                return 1, f"Traceback\n{reason}"
        return 0, "fine"

    def _pip(self, args: list[str]) -> tuple[int, str]:
        if args[0] == "uninstall":
            del self.installed[args[-1]]
            return 0, ""
        if "--editable" in args:
            if args[-1] in self.project_fails:
                return 1, f"ERROR: No matching distribution found for {args[-1]}"
            self.installed["torch"] = self.project_moves_torch or self.installed["torch"]
            return 0, ""
        index = args[args.index("--index-url") + 1] if "--index-url" in args else ""
        version = self.wheels.get((index, args[-1]))
        if version is None:
            return 1, f"ERROR: No matching distribution found for {args[-1]}"
        if "--dry-run" in args:
            metadata = {"version": version, "requires_dist": self.requires.get(version)}
            report = Path(args[args.index("--report") + 1])
            report.write_text(json.dumps({"install": [{"metadata": metadata}]}))
        else:
            self.installed["torch"] = version
        return 0, ""
