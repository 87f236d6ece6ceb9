"""From what a user names as the model, a folder or a model id, to a folder on this machine.

Downloads only the files a checkpoint needs. Does not look into them.
Source: docs/model.md, "Checkpoint files".
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from tqdm.auto import tqdm

from cosyvoice_core.checkpoint.directory import NEEDED, OFFICIAL_MODELS, SAVED_VOICES, CheckpointDirectory
from cosyvoice_core.errors import CheckpointError

Source = Literal["huggingface", "modelscope"]

WANTED = (*NEEDED, SAVED_VOICES)
"""Files that are fetched; saved voices only where the model has them."""

_SITES: Mapping[str, str] = {"huggingface": "Hugging Face", "modelscope": "ModelScope"}
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_MODEL_ID = re.compile(rf"{_PART}/{_PART}")
# The hub's HTTP library is not ours to import: its base error is among the bases of the hub's own.
_HUB_FAILURES: tuple[type[BaseException], ...] = (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__)


def resolve_model(
    model: str, *, source: Source = "huggingface", cache: Path | None = None, progress: bool = True
) -> Path:
    """Return the checkpoint folder that `model` names, downloading it when it is a model id.

    An existing folder is returned as it is. An id such as `FunAudioLLM/CosyVoice2-0.5B` is fetched from `source`, or
    from the site before it (`modelscope:iic/CosyVoice2-0.5B`), into `cache` (default: that site's own cache), with
    progress bars unless `progress` is False; ModelScope needs the `modelscope` extra and always shows its own.

    Raises CheckpointError when `model` is neither, cannot be fetched (saying where to put the files by hand) or turns
    out to be incomplete.
    """
    found = _on_this_machine(model)
    if found is not None:
        return found
    site, colon, rest = model.partition(":")
    if colon and site in _SITES:
        source, model = cast(Source, site), rest
    if source not in _SITES:
        raise CheckpointError(f"model source {source!r} is not known; use one of {', '.join(_SITES)}")
    if ".." in model or "--" in model or not _MODEL_ID.fullmatch(model):
        raise CheckpointError(
            f"model {model!r} is neither an existing folder nor a model id such as {OFFICIAL_MODELS[source]}"
        )
    fetched = _from_hub(model, cache, progress) if source == "huggingface" else _from_modelscope(model, cache)
    CheckpointDirectory(fetched).verify()
    return fetched


def _on_this_machine(model: str) -> Path | None:
    try:
        path = Path(model).expanduser()
        if not model or not path.exists():
            return None
    except (OSError, RuntimeError, ValueError):
        # Names that no file can have, or the home of an unknown user.
        return None
    if not path.is_dir():
        raise CheckpointError(f"model {model!r} is a file; give the folder that holds it")
    return path


class _Silent(tqdm):  # type: ignore[type-arg]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})


def _from_hub(model: str, cache: Path | None, progress: bool) -> Path:
    try:
        path = snapshot_download(
            model, cache_dir=cache, allow_patterns=list(WANTED), tqdm_class=None if progress else _Silent
        )
    except _HUB_FAILURES as error:
        raise _not_fetched(model, "huggingface", error) from error
    return Path(path)


def _from_modelscope(model: str, cache: Path | None) -> Path:
    try:
        modelscope = importlib.import_module("modelscope")
        hub_errors = importlib.import_module("modelscope.hub.errors")
    except ImportError as error:
        raise CheckpointError(
            f"downloading {model} from ModelScope needs its client: pip install 'cosyvoice-serve[modelscope]'"
        ) from error
    own = [value for value in vars(hub_errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    failures: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, *own)
    try:
        path: str = modelscope.snapshot_download(
            model, cache_dir=None if cache is None else str(cache), allow_file_pattern=list(WANTED)
        )
    except failures as error:
        raise _not_fetched(model, "modelscope", error) from error
    return Path(path)


def _not_fetched(model: str, source: Source, error: BaseException) -> CheckpointError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return CheckpointError(
        f"there is no folder {model!r}, and the model {model} could not be fetched from {_SITES[source]} ({reason}). "
        f"Without network, copy {', '.join(NEEDED)} from a machine that has them into a folder and give its path"
    )
