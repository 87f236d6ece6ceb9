"""State dicts of a checkpoint: read without unpickling code, checked key by key, cast to float32.

Does not know which architecture a file belongs to; each model room builds its module and hands it here.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cosyvoice_core.errors import CheckpointError

TRAINING_ENTRIES = ("epoch", "step")
_SHOWN = 5
_DAMAGE = (
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
"""What the restricted unpickler raises on a file that was cut or altered, depending on where."""


def read_state(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """Read a flat state dict onto the CPU; counters that training leaves behind are dropped.

    With `mapped` the tensors stay in the file until they are touched, which is enough to look at names and shapes.

    Raises CheckpointError when the file is missing, is not a torch file, or holds anything but named tensors.
    """
    loaded = load_plain(path, mapped=mapped)
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: expected a dict of tensors, found {type(loaded).__name__}")
    state: dict[str, Tensor] = {}
    for key, value in loaded.items():
        if key in TRAINING_ENTRIES:
            continue
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: entry {key!r} is a {type(value).__name__}, expected a tensor")
        if value.layout is not torch.strided or value.is_meta:
            raise CheckpointError(f"{path}: entry {key!r} is {value.layout}, expected a dense tensor")
        state[key] = value
    return state


def load_plain(path: Path, *, mapped: bool = False) -> object:
    """Read a torch file that holds only tensors and plain values, onto the CPU; no code in it is run.

    With `mapped` tensor data stays in the file until it is touched. Raises CheckpointError when the file is missing,
    damaged or holds anything else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: file is missing; expected a torch file")
    try:
        mmap = mapped and zipfile.is_zipfile(path)
        loaded: object = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        # torch's own text advises to switch the protection off; only what it met is of use.
        met = [line for line in str(error).splitlines() if "GLOBAL" in line or "class" in line]
        found = met[0].strip() if met else "not a torch file"
        raise CheckpointError(f"{path}: damaged, or holds more than plain tensors ({found[:200]})") from error
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise CheckpointError(f"{path}: not a readable torch file ({reason})") from error
    return loaded


def damage(path: Path) -> str:
    """What in a torch file differs from the checksum it was stored with; "" if nothing does, or it has none.

    Loading does not look at checksums, so altered weights go unnoticed there. Reads the whole file, once.
    """
    try:
        if not zipfile.is_zipfile(path):
            return ""
        with zipfile.ZipFile(path) as archive:
            entry = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
        return f"damaged ({type(error).__name__}: {str(error)[:120]})"
    return "" if entry is None else f"damaged: {entry} differs from its checksum"


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each pair of magnitude g and direction v by W = g v / |v|, norm over all dims but the first.

    Both spellings of the pair are read: `parametrizations.weight.original0/1` and `weight_g`/`weight_v`. What is no
    pair stays as it is, for the strict check to name.
    """
    spellings = (
        (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
        (".weight_g", ".weight_v"),
    )
    folded = dict(state)
    for g_suffix, v_suffix in spellings:
        for g_key in [key for key in folded if key.endswith(g_suffix)]:
            name = g_key.removesuffix(g_suffix)
            if not _is_pair(folded[g_key], folded.get(name + v_suffix)):
                continue
            g, v = folded.pop(g_key).float(), folded.pop(name + v_suffix).float()
            norm = v.flatten(1).norm(dim=1).view(-1, *([1] * (v.dim() - 1)))
            folded[f"{name}.weight"] = v * (g.view_as(norm) / norm)
    return folded


def _is_pair(g: Tensor, v: Tensor | None) -> bool:
    return v is not None and v.dim() > 1 and g.numel() == v.shape[0]


def misfits(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from being exactly the tensors of `expected`: missing, unexpected, mis-shaped, not real."""
    missing = [f"{key} {list(shape)}" for key, shape in expected.items() if key not in state]
    extra = [f"{key} {list(value.shape)}" for key, value in state.items() if key not in expected]
    shapes = [
        f"{key} is {list(value.shape)}, expected {list(expected[key])}"
        for key, value in state.items()
        if key in expected and tuple(value.shape) != expected[key]
    ]
    types = [f"{key} is {value.dtype}" for key, value in state.items() if not value.is_floating_point()]
    kinds = (("missing", missing), ("unexpected", extra), ("mis-shaped", shapes), ("not of real numbers", types))
    return [
        f"{len(found)} {kind}: {'; '.join(found[:_SHOWN])}{' ...' if len(found) > _SHOWN else ''}"
        for kind, found in kinds
        if found
    ]


def require_shapes(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], source: str) -> None:
    """Check that `state` holds exactly the named tensors of `expected`, each of its shape.

    Raises CheckpointError that names the missing, extra and mis-shaped tensors of `source`.
    """
    problems = misfits(expected, state)
    if problems:
        raise CheckpointError(f"{source} does not fit the architecture in the config: {' | '.join(problems)}")


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module` as float32; every tensor of either must have its counterpart and shape.

    Raises CheckpointError that names the missing, extra and mis-shaped tensors of `source`.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    require_shapes(expected, state, source)
    module.load_state_dict({key: value.float() for key, value in state.items()}, strict=True)
