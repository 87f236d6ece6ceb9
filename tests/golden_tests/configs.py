"""Dims and constants of a golden set's acoustic half, from its `config.json`."""

from __future__ import annotations

import json
from pathlib import Path

from cosyvoice_core.config import FlowConfig, VocoderConfig
from cosyvoice_core.reference import ReferenceSettings


def vocoder_config(path: Path) -> VocoderConfig:
    """Dims of the vocoder of a golden set."""
    hift = json.loads(path.read_text())["hift"]
    return VocoderConfig(
        mel_bins=hift["in_channels"],
        base_channels=hift["base_channels"],
        harmonics=hift["nb_harmonics"],
        sample_rate=hift["sampling_rate"],
        sine_amplitude=hift["nsf_alpha"],
        noise_sigma=hift["nsf_sigma"],
        voiced_threshold_hz=hift["nsf_voiced_threshold"],
        upsample_rates=tuple(hift["upsample_rates"]),
        upsample_kernels=tuple(hift["upsample_kernel_sizes"]),
        istft_n_fft=hift["istft_n_fft"],
        istft_hop=hift["istft_hop"],
        resblock_kernels=tuple(hift["resblock_kernel_sizes"]),
        resblock_dilations=tuple(map(tuple, hift["resblock_dilation_sizes"])),
        source_resblock_kernels=tuple(hift["source_resblock_kernel_sizes"]),
        source_resblock_dilations=tuple(map(tuple, hift["source_resblock_dilation_sizes"])),
        lrelu_slope=hift["lrelu_slope"],
        audio_limit=hift["audio_limit"],
        f0_channels=hift["f0_cond_channels"],
    )


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


def session_settings(path: Path) -> ReferenceSettings:
    """Hops and overlaps of the sessions of a golden set."""
    constants = json.loads(path.read_text())["token2wav"]
    return ReferenceSettings(
        first_hop=constants["token_hop_len"],
        max_hop=constants["token_max_hop_len"],
        growth=constants["stream_scale_factor"],
        kept_frames=constants["mel_cache_len"],
    )
