"""State dicts of a checkpoint: read without unpickling code, checked key by key, cast to float32.

Does not know which architecture a file belongs to; each model room builds its module and hands it here.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cosyvoice_core.errors import CheckpointError

TRAINING_ENTRIES = ("epoch", "step")
_SHOWN = 5


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a flat state dict onto the CPU; counters that training leaves behind are dropped.

    Raises CheckpointError when the file is missing, is not a torch file, or holds anything but named tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: file is missing; expected a torch state dict")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable torch state dict ({error})") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: expected a dict of tensors, found {type(loaded).__name__}")
    state: dict[str, Tensor] = {}
    for key, value in loaded.items():
        if key in TRAINING_ENTRIES:
            continue
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: entry {key!r} is a {type(value).__name__}, expected a tensor")
        state[key] = value
    return state


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each pair of magnitude g and direction v by W = g v / |v|, norm over all dims but the first.

    Both spellings of the pair are read: `parametrizations.weight.original0/1` and `weight_g`/`weight_v`.
    """
    spellings = (
        (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
        (".weight_g", ".weight_v"),
    )
    folded = dict(state)
    for g_suffix, v_suffix in spellings:
        for g_key in [key for key in folded if key.endswith(g_suffix)]:
            name = g_key.removesuffix(g_suffix)
            if name + v_suffix not in folded:
                continue
            g, v = folded.pop(g_key).float(), folded.pop(name + v_suffix).float()
            norm = v.flatten(1).norm(dim=1).view(-1, *([1] * (v.dim() - 1)))
            folded[f"{name}.weight"] = v * (g.view_as(norm) / norm)
    return folded


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module` as float32; every tensor of either must have its counterpart and shape.

    Raises CheckpointError that names the missing, extra and mis-shaped tensors of `source`.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    missing = [f"{key} {list(shape)}" for key, shape in expected.items() if key not in state]
    extra = [f"{key} {list(value.shape)}" for key, value in state.items() if key not in expected]
    shapes = [
        f"{key} is {list(value.shape)}, expected {list(expected[key])}"
        for key, value in state.items()
        if key in expected and tuple(value.shape) != expected[key]
    ]
    problems = [
        f"{len(found)} {kind}: {'; '.join(found[:_SHOWN])}{' ...' if len(found) > _SHOWN else ''}"
        for kind, found in (("missing", missing), ("unexpected", extra), ("mis-shaped", shapes))
        if found
    ]
    if problems:
        raise CheckpointError(f"{source} does not fit the architecture in the config: {' | '.join(problems)}")
    module.load_state_dict({key: value.float() for key, value in state.items()}, strict=True)
