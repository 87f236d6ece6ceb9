"""Which engine a replica of the language model runs, and how it is made."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ray

from cosyvoice_core.config import ModelConfig
from cosyvoice_core.lm.engine import TorchEngine
from deployments.args import LMArgs
from deployments.speech_lm import vllm_process
from deployments.speech_lm.conversion import ConvertedModels, default_cache
from deployments.speech_lm.engine import TokenEngine
from deployments.speech_lm.torch_engine import TorchTokenEngine
from deployments.speech_lm.widening import widening_factor
from deployments.stage import resolve_device, resolve_dtype

logger = logging.getLogger("ray.serve")


def make_engine(directory: Path, config: ModelConfig, args: LMArgs) -> TokenEngine:
    """The engine that `args.engine` names; blocks until it can be used.

    Raises CheckpointError when the model does not fit, EngineError when vLLM was asked for and cannot run.
    """
    engine = args.engine
    if engine == "auto":
        engine = "vllm" if vllm_process.vllm_installed() else "torch"
        logger.info("language model engine: %s", engine)
    return _vllm(directory, config, args) if engine == "vllm" else _torch(directory, config, args)


def _torch(directory: Path, config: ModelConfig, args: LMArgs) -> TokenEngine:
    device, dtype = resolve_device(args), resolve_dtype(args.dtype)
    engine = TorchEngine.from_directory(directory, config.lm, device=device, dtype=dtype)
    return TorchTokenEngine(engine, args.max_sequences)


def _vllm(directory: Path, config: ModelConfig, args: LMArgs) -> TokenEngine:
    device, dtype = resolve_device(args), resolve_dtype(args.dtype)
    vllm_process.set_environment(device, args.threads)
    widening = widening_factor(config.lm) if device.type == "cpu" else 1
    models = ConvertedModels(default_cache() / "language-models")
    folder = models.model(directory / "llm.pt", config.lm, dtype, widening)
    # vLLM reads the environment when it is imported.
    from deployments.speech_lm.vllm_engine import VllmTokenEngine

    return VllmTokenEngine(
        folder,
        config.lm,
        device=device,
        dtype=dtype,
        max_sequences=args.max_sequences,
        args=args.vllm,
        token_rate=config.token_rate,
        stat_loggers=_ray_metrics(),
    )


def _ray_metrics() -> list[Any]:
    """vLLM's own figures through Ray's Prometheus endpoint: waiting, running, KV use, preemptions, latencies."""
    if not ray.is_initialized():
        return []
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    return [RayPrometheusStatLogger]
