"""Makes our network known to every vLLM process: entry point `vllm.general_plugins` in pyproject.toml.

The engine core is a spawned process, so what the parent registers itself would not be there. The class is named, not
imported: this runs in every process that imports vLLM.
"""

from __future__ import annotations

from vllm import ModelRegistry

from deployments.speech_lm.conversion import ARCHITECTURE


def register() -> None:
    """Called by vLLM at the start of each of its processes; may be called again."""
    ModelRegistry.register_model(ARCHITECTURE, "deployments.speech_lm.vllm_model:SpeechTokenLM")
