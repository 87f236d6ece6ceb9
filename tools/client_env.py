"""`python -m tools.client_env`: a second environment for a client that the tests call, and that cannot live in ours.

pipecat-ai wants an older protobuf than ours. The second environment sees all packages of the first and holds only what
differs, before them on the path; so it is small, and nothing of ours changes. Standard library only.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from tools.setup_choices import SetupError
from tools.setup_steps import last_line, say

REQUIREMENTS = ("pipecat-ai[openai]>=1.14,<2",)
_STAMP = "clients.txt"


def client_python(venv: Path) -> Path:
    """Its interpreter, beside the environment `venv`, whether it is there or not."""
    return venv / "clients" / "bin" / "python"


def is_built(venv: Path) -> bool:
    stamp = venv / "clients" / _STAMP
    return client_python(venv).exists() and stamp.exists() and stamp.read_text() == _wanted()


def build(venv: Path) -> Path:
    """Make it inside of the environment `venv`, whose interpreter this is; returns the new interpreter.

    Raises SetupError with pip's last words.
    """
    python = client_python(venv)
    if is_built(venv):
        return python
    folder = python.parents[1]
    _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    site.mkdir(parents=True, exist_ok=True)
    # What a .pth file names comes after this environment's own packages.
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "first_environment.pth").write_text("".join(f"{path}\n" for path in sorted(others)))
    _run(str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS)
    (folder / _STAMP).write_text(_wanted())
    return python


def _wanted() -> str:
    return "\n".join((*REQUIREMENTS, ""))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(last_line(done.stdout + done.stderr))


def main() -> int:
    """Returns the process's exit status."""
    try:
        python = build(Path(sys.prefix))
    except SetupError as error:
        print(f"the environment of the tests' clients could not be made: {error}", file=sys.stderr)
        return 1
    say(f"{python} has {', '.join(REQUIREMENTS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
