"""Starts vLLM's engine for the speech-token model: environment, version, arguments. Decides nothing per request."""

from __future__ import annotations

import logging
import os
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cosyvoice_core.errors import EngineError
from deployments.speech_lm.vllm_args import VllmArgs

SUPPORTED = "0.32"
PROCESSOR = "deployments.speech_lm.ras_processor:RasProcessor"
"""Handed over as an argument, never by entry point: only then does vLLM keep the true history for it when it schedules
ahead."""
_CPU_BLOCK = 32

logger = logging.getLogger("ray.serve")


def vllm_installed() -> bool:
    """Whether vLLM can be imported, without doing so."""
    return find_spec("vllm") is not None


def set_environment(device: torch.device, threads: int) -> None:
    """What vLLM and its child processes read from the environment; what is set already is respected.

    Must run before vLLM is imported.
    """
    values = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CONFIGURE_LOGGING": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if device.type == "cpu":
        # One process less, and no threads nailed to cores that other stages use as well.
        values |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        values |= {"OMP_NUM_THREADS": str(threads)}
    for name, value in values.items():
        os.environ.setdefault(name, value)


def check_installation() -> None:
    """Raises EngineError when this vLLM is another than the one this was written for, or does not know our network."""
    import vllm

    if not vllm.__version__.startswith(f"{SUPPORTED}."):
        raise EngineError(
            f"vLLM {vllm.__version__} is installed and {SUPPORTED}.* is needed; install that or set lm.engine to torch"
        )
    plugins = {entry.value for entry in entry_points(group="vllm.general_plugins")}
    if "deployments.speech_lm.vllm_plugin:register" not in plugins:
        raise EngineError(
            "vLLM does not see this project's entry point; run `make setup`, and remove a stale *.egg-info from the "
            "project's folder"
        )


def start(
    folder: Path, device: torch.device, dtype: torch.dtype, max_sequences: int, args: VllmArgs, loggers: list[Any]
) -> Any:
    """A running `AsyncLLM` over a converted folder; takes half a minute and blocks.

    loggers: vLLM's stat logger classes. Raises EngineError when the installation does not fit.
    """
    check_installation()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine_args = AsyncEngineArgs(**engine_arguments(folder, device, dtype, max_sequences, args))
    engine = AsyncLLM.from_engine_args(engine_args, stat_loggers=loggers or None)
    logger.info("vLLM engine runs on %s, %d sequences of %d positions", device, max_sequences, args.max_model_len)
    return engine


def engine_arguments(
    folder: Path, device: torch.device, dtype: torch.dtype, max_sequences: int, args: VllmArgs
) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs`; speculation, fp8 and vLLM's own replicas stay off."""
    on_cpu = device.type == "cpu"
    eager = on_cpu if args.enforce_eager is None else args.enforce_eager
    # vLLM's own CPU default of 128 positions would leave nothing to reuse in prompts as short as ours; on CUDA the
    # attention kernels choose.
    block_size = _CPU_BLOCK if on_cpu and args.block_size is None else args.block_size
    chosen: dict[str, Any] = {} if block_size is None else {"block_size": block_size}
    if not eager:
        chosen["cudagraph_capture_sizes"] = list(args.cudagraph_capture_sizes)
    return chosen | {
        "model": str(folder),
        "skip_tokenizer_init": True,
        # Else ids that end a text in the Qwen2 settings would end speech.
        "generation_config": "vllm",
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": args.max_model_len,
        "max_num_seqs": max_sequences,
        "max_num_batched_tokens": max(args.max_batched_tokens, max_sequences),
        "kv_cache_memory_bytes": args.kv_cache_memory_bytes,
        "gpu_memory_utilization": args.gpu_memory_utilization,
        "enable_prefix_caching": args.enable_prefix_caching,
        "enforce_eager": eager,
        "scheduling_policy": "priority",
        "logits_processors": [PROCESSOR],
    }
