"""`cosyvoice_core` is a library of its own: it needs no Ray, no vLLM and nothing of the service."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "cosyvoice_core"
FOREIGN = frozenset({"ray", "vllm", "deployments", "loadtest", "tools", "tests"})
FOUNDATION = frozenset({"config", "errors", "inputs", "recording"})
LOWER = frozenset({"audio", "checkpoint"})
UPPER = frozenset({"lm", "flow", "vocoder", "voice", "text"})

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {foreign!r}:
            raise AssertionError(f"cosyvoice_core tried to import {{name}}")

sys.meta_path.insert(0, Refuse())
import cosyvoice_core
names = [module.name for module in pkgutil.walk_packages(cosyvoice_core.__path__, "cosyvoice_core.")]
for name in names:
    importlib.import_module(name)
assert not {foreign!r} & {{name.partition(".")[0] for name in sys.modules}}
print(*names, sep="\\n")
"""


def imported_modules(source: str) -> Iterator[str]:
    """Names of all modules a source imports, inside functions and by `import_module` as well."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__", "find_spec"):
                yield str(node.args[0].value)


def rooms_entered(source: str) -> set[str]:
    """Which parts of the core (`lm`, `config`, ...) a source imports from."""
    parts = (name.split(".") for name in imported_modules(source))
    return {part[1] for part in parts if part[0] == "cosyvoice_core" and len(part) > 1}


def core_sources() -> list[Path]:
    return sorted(CORE.rglob("*.py"))


def test_every_core_module_is_importable_where_ray_and_vllm_are_refused() -> None:
    script = IMPORT_EVERYTHING.format(foreign=set(FOREIGN))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    on_disk = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in core_sources()
    }
    assert imported == on_disk - {"cosyvoice_core"}


def test_no_core_source_names_ray_vllm_or_the_service_in_an_import() -> None:
    named = {path: {name.partition(".")[0] for name in imported_modules(path.read_text())} for path in core_sources()}
    assert {str(path): names & FOREIGN for path, names in named.items() if names & FOREIGN} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import ray",
        "import numpy, vllm.outputs",
        "def late():\n    from ray import serve",
        "import importlib\nimportlib.import_module('vllm')",
        "try:\n    __import__('ray.serve')\nexcept ImportError:\n    pass",
        "from deployments.messages import TokenHop",
    ],
)
def test_the_scan_sees_imports_however_they_are_written(source: str) -> None:
    assert {name.partition(".")[0] for name in imported_modules(source)} & FOREIGN


def wrongly_entered(part: str, source: str) -> set[str]:
    """Parts of the core that a source of `part` imports from and must not."""
    if part in UPPER:
        allowed = LOWER | FOUNDATION | {part}
    elif part in LOWER:
        allowed = FOUNDATION | {part}
    elif part in FOUNDATION:
        allowed = FOUNDATION
    else:
        return set()
    return rooms_entered(source) - allowed


def part_of(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def test_arrows_between_rooms_go_one_way() -> None:
    wrong = {str(path): wrongly_entered(part_of(path), path.read_text()) for path in core_sources()}
    assert {path: rooms for path, rooms in wrong.items() if rooms} == {}


@pytest.mark.parametrize(
    ("part", "source", "wrong"),
    [
        ("vocoder", "from cosyvoice_core.flow.model import FlowModel", {"flow"}),
        ("lm", "from cosyvoice_core import flow", {"flow"}),
        ("audio", "def late():\n    import cosyvoice_core.text.frontend", {"text"}),
        ("checkpoint", "import cosyvoice_core.audio.decode", {"audio"}),
        ("voice", "from cosyvoice_core.synthesis import Synthesizer", {"synthesis"}),
        ("config", "from cosyvoice_core.checkpoint import settings", {"checkpoint"}),
        ("voice", "from cosyvoice_core.audio.features import prompt_mel", set()),
        ("synthesis", "from cosyvoice_core.flow.model import FlowModel", set()),
    ],
)
def test_the_arrow_rule_refuses_neighbours_and_upper_floors(part: str, source: str, wrong: set[str]) -> None:
    assert wrongly_entered(part, source) == wrong


def test_every_room_of_the_plan_exists() -> None:
    assert {path.name for path in CORE.iterdir() if (path / "__init__.py").is_file()} >= UPPER | LOWER
