"""Model dims of a golden set's flow half, from its `config.json`."""

from __future__ import annotations

import json
from pathlib import Path

from cosyvoice_core.config import FlowConfig


def flow_config(path: Path) -> FlowConfig:
    """Dims of the flow model of a golden set."""
    flow = json.loads(path.read_text())["flow"]
    return FlowConfig(
        vocab_size=flow["vocab_size"],
        mel_bins=flow["mel"],
        speaker_dim=flow["spk_dim"],
        encoder_dim=flow["dim"],
        encoder_heads=flow["heads"],
        encoder_ffn=flow["ffn"],
        encoder_blocks=flow["blocks"],
        upsampled_blocks=flow["up_blocks"],
        lookahead_tokens=flow["lookahead"],
        chunk_tokens=flow["chunk"],
        mel_ratio=flow["ratio"],
        channels=flow["est_channels"],
        estimator_heads=flow["est_heads"],
        estimator_head_dim=flow["est_head_dim"],
        blocks_per_stage=flow["est_n_blocks"],
        mid_stages=flow["est_mid"],
        ode_steps=flow["n_timesteps"],
        cfg_rate=flow["cfg_rate"],
    )
