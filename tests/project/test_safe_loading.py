"""No file that is read can run code: a walk over our sources for the calls that would allow it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("cosyvoice_core", "deployments", "loadtest", "tools")

NEVER = frozenset(
    {
        *(f"{module}.{name}" for module in ("pickle", "cloudpickle", "marshal", "dill") for name in ("load", "loads")),
        "pickle.Unpickler",
        "shelve.open",
        "joblib.load",
        "yaml.load",
        "yaml.load_all",
        "yaml.full_load",
        "yaml.unsafe_load",
        "yaml.Loader",
        "yaml.UnsafeLoader",
        "yaml.FullLoader",
        "torch.hub.load",
        "torch.jit.load",
        "torch.package.PackageImporter",
        "numpy.lib.format.read_array",
        "os.system",
        "os.popen",
        "tempfile.mktemp",
        "eval",
        "exec",
    }
)
"""Whatever they are given."""

NEEDED = {"torch.load": ("weights_only", True)}
"""Calls that must have an argument with this value."""

FORBIDDEN = {"allow_pickle": True, "trust_remote_code": True, "shell": True, "weights_only": False}
"""Arguments that no call may have, unless with a constant of another value."""


def unsafe(source: str) -> Iterator[str]:
    """What a source has that the rules above forbid, with its line."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and (name := _full_name(node, names)) in NEVER:
            yield f"line {node.lineno}: {name}"
        if not isinstance(node, ast.Call):
            continue
        name = _full_name(node.func, names)
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in NEEDED:
            argument, value = NEEDED[name]
            if not _is(given.get(argument), value):
                yield f"line {node.lineno}: {name} without {argument}={value}"
        for argument, value in FORBIDDEN.items():
            if argument in given and not _is(given[argument], not value):
                yield f"line {node.lineno}: {argument} may be {value}"


def _full_name(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = _full_name(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("package", OURS)
def test_nothing_that_is_read_can_run_code(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = [f"{path.relative_to(ROOT)} {what}" for path in files for what in unsafe(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "import pickle as p\np.loads(data)",
        "from pickle import loads as read\nread(data)",
        "from pickle import Unpickler\nclass Mine(Unpickler): pass",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=safe)",
        "from torch import load\nload(path)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nread = yaml.unsafe_load",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "import subprocess\nsubprocess.run(line, shell=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "eval(text)",
        "run = exec",
        "import os\nos.system(line)",
    ],
)
def test_the_walk_finds(source: str) -> None:
    assert list(unsafe(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
        "import yaml\nyaml.safe_load(text)",
        "import numpy as np\nnp.load(path)",
        "model.eval()",
        "self.load(path)",
        "import pickle\ntry: pass\nexcept pickle.UnpicklingError: pass",
    ],
)
def test_the_walk_passes(source: str) -> None:
    assert list(unsafe(source)) == []
