"""Settings of the vLLM engine, as they stand under `lm.vllm` in the Serve config. Imports no vLLM."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class VllmArgs(BaseModel):
    """Sizes and shares of one engine. `dtype` and `max_sequences` are the language model stage's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_model_len: int = Field(
        default=4096, ge=64, description="positions of one utterance, prompt included; 25 of them are a second"
    )
    kv_cache_memory_bytes: int = Field(
        default=2**30, ge=2**20, description="KV cache; 12 KiB per position of CosyVoice2-0.5B in bfloat16"
    )
    gpu_memory_utilization: float = Field(
        default=0.2, gt=0, le=1, description="part of the whole card that must be free at start, whoever shares it"
    )
    max_batched_tokens: int = Field(default=2048, ge=64, description="positions computed in one step")
    enforce_eager: bool | None = Field(default=None, description="no CUDA graphs; None: on a CPU only")
    cudagraph_capture_sizes: tuple[int, ...] = Field(
        default=(1, 2, 4, 8, 16, 32, 64), min_length=1, description="batch sizes with a CUDA graph of their own"
    )
    block_size: int | None = Field(default=None, ge=1, description="positions per KV block; None: 32 on a CPU")
    enable_prefix_caching: bool = Field(
        default=True, description="what an utterance had computed before it gave its place up is found again"
    )
    idle_release_s: float = Field(
        default=5.0, gt=0, description="a stream that waits longer for text gives its place in the engine back"
    )
    yield_lead_s: float = Field(
        default=3.0, ge=0, description="with utterances waiting, one this far ahead of its listener makes room"
    )
