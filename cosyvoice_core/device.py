"""The device that a user names, checked before anything is loaded."""

from __future__ import annotations

import torch

from cosyvoice_core.errors import InputError


def usable_device(name: str) -> torch.device:
    """The torch device called `name`. Raises InputError when torch does not know it or cannot use it here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    # What torch raises depends on its build: a CPU build fails an assertion when asked for CUDA.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:160]
        cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise InputError("device", f"{name!r} cannot be used here ({reason})", ", ".join(["cpu", *cuda])) from error
    return device
