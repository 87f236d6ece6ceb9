"""The language model's dimensions as Qwen2's `config.json` says them. Knows no files."""

from __future__ import annotations

from cosyvoice_core.config import LMConfig


def qwen_config(config: LMConfig) -> dict[str, object]:
    """What stands in the file for a model of these dimensions."""
    return {
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": config.hidden,
        "head_dim": config.head_dim,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate,
        "max_position_embeddings": config.max_positions,
        "max_window_layers": config.layers,
        "model_type": "qwen2",
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.rms_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": config.text_rows,
    }
