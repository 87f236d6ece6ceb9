"""Makes our network known to every vLLM process: entry point `vllm.general_plugins` in pyproject.toml.

The engine core is a spawned process, so what the parent registers itself would not be there. The class is named, not
imported: this runs in every process that imports vLLM.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess

from vllm import ModelRegistry

from deployments.speech_lm.conversion import ARCHITECTURE


def register() -> None:
    """Called by vLLM at the start of each of its processes; may be called again."""
    ModelRegistry.register_model(ARCHITECTURE, "deployments.speech_lm.vllm_model:SpeechTokenLM")
    parent = multiprocessing.parent_process()
    if parent is not None and multiprocessing.current_process().name.startswith("EngineCore"):
        threading.Thread(target=_die_with, args=(parent,), name="parent-watch", daemon=True).start()


def _die_with(parent: BaseProcess) -> None:
    """An engine whose replica was killed would keep its memory for ever: vLLM ends it only when told to."""
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
