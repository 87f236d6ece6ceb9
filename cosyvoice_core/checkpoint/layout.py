"""Names and shapes of every tensor in `llm.pt`, `flow.pt` and `hift.pt`, worked out from the dimensions alone.

Knows no files and allocates nothing; inspection compares with these tables, random checkpoints are written from them.
Source: docs/model.md, "Checkpoint files".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from cosyvoice_core.config import FlowConfig, LMConfig, VocoderConfig

Shape = tuple[int, ...]
Entry = tuple[str, Shape]

Value = TypeVar("Value")

MAGNITUDE, DIRECTION = ".parametrizations.weight.original0", ".parametrizations.weight.original1"
"""Ends of the names under which a weight-normalised convolution keeps its two parts."""

SPEECH_EXTRA_ROWS = 3
"""End of speech, an unused id and fill follow the speech tokens."""

TIED_HEAD = "llm.model.lm_head.weight"
"""Shares storage with the text embedding and is never used."""

TEXT_EMBEDDING = "llm.model.model.embed_tokens.weight"


def lm_layout(config: LMConfig) -> dict[str, Shape]:
    """Key -> shape of `llm.pt`."""
    return dict(_lm_entries(config))


def flow_layout(config: FlowConfig) -> dict[str, Shape]:
    """Key -> shape of `flow.pt`."""
    return dict([*_encoder_entries(config), *_estimator_entries(config)])


def vocoder_layout(config: VocoderConfig) -> dict[str, Shape]:
    """Key -> shape of `hift.pt`; weight-normalised convolutions as their (original0, original1) pairs."""
    return dict(_vocoder_entries(config))


def official_names(state: Mapping[str, Value]) -> dict[str, Value]:
    """The entries of a vocoder file under the names of its layout.

    A file saved inside its training wrapper carries `generator.` and a discriminator; an old one spells the pairs of
    weight norm `weight_g` and `weight_v`.
    """
    named = {}
    for key, value in state.items():
        if key.startswith("discriminator."):
            continue
        name = key.replace("generator.", "")
        for old, new in ((".weight_g", MAGNITUDE), (".weight_v", DIRECTION)):
            if name.endswith(old):
                name = name.removesuffix(old) + new
        named[name] = value
    return named


def _affine(name: str, out: int, *inner: int) -> list[Entry]:
    return [(f"{name}.weight", (out, *inner)), (f"{name}.bias", (out,))]


def _lm_entries(config: LMConfig) -> Iterator[Entry]:
    hidden, speech_rows = config.hidden, config.speech_tokens + SPEECH_EXTRA_ROWS
    yield "llm_embedding.weight", (2, hidden)
    yield TEXT_EMBEDDING, (config.text_rows, hidden)
    for layer in range(config.layers):
        name = f"llm.model.model.layers.{layer}"
        yield from _affine(f"{name}.self_attn.q_proj", config.heads * config.head_dim, hidden)
        yield from _affine(f"{name}.self_attn.k_proj", config.kv_heads * config.head_dim, hidden)
        yield from _affine(f"{name}.self_attn.v_proj", config.kv_heads * config.head_dim, hidden)
        yield f"{name}.self_attn.o_proj.weight", (hidden, config.heads * config.head_dim)
        yield f"{name}.mlp.gate_proj.weight", (config.intermediate, hidden)
        yield f"{name}.mlp.up_proj.weight", (config.intermediate, hidden)
        yield f"{name}.mlp.down_proj.weight", (hidden, config.intermediate)
        yield f"{name}.input_layernorm.weight", (hidden,)
        yield f"{name}.post_attention_layernorm.weight", (hidden,)
    yield "llm.model.model.norm.weight", (hidden,)
    yield TIED_HEAD, (config.text_rows, hidden)
    yield from _affine("llm_decoder", speech_rows, hidden)
    yield "speech_embedding.weight", (speech_rows, hidden)


def _encoder_entries(config: FlowConfig) -> Iterator[Entry]:
    dim = config.encoder_dim
    yield "input_embedding.weight", (config.vocab_size, dim)
    yield from _affine("spk_embed_affine_layer", config.mel_bins, config.speaker_dim)
    yield from _affine("encoder.embed.out.0", dim, dim)
    yield from _affine("encoder.embed.out.1", dim)
    yield from _affine("encoder.after_norm", dim)
    yield from _affine("encoder.pre_lookahead_layer.conv1", dim, dim, config.lookahead_tokens + 1)
    yield from _affine("encoder.pre_lookahead_layer.conv2", dim, dim, 3)
    for block in range(config.encoder_blocks):
        yield from _encoder_block(f"encoder.encoders.{block}", config)
    yield from _affine("encoder.up_layer.conv", dim, dim, 2 * config.mel_ratio + 1)
    yield from _affine("encoder.up_embed.out.0", dim, dim)
    yield from _affine("encoder.up_embed.out.1", dim)
    for block in range(config.upsampled_blocks):
        yield from _encoder_block(f"encoder.up_encoders.{block}", config)
    yield from _affine("encoder_proj", config.mel_bins, dim)


def _encoder_block(name: str, config: FlowConfig) -> Iterator[Entry]:
    dim, heads = config.encoder_dim, config.encoder_heads
    yield f"{name}.self_attn.pos_bias_u", (heads, dim // heads)
    yield f"{name}.self_attn.pos_bias_v", (heads, dim // heads)
    for linear in ("linear_q", "linear_k", "linear_v", "linear_out"):
        yield from _affine(f"{name}.self_attn.{linear}", dim, dim)
    yield f"{name}.self_attn.linear_pos.weight", (dim, dim)
    yield from _affine(f"{name}.feed_forward.w_1", config.encoder_ffn, dim)
    yield from _affine(f"{name}.feed_forward.w_2", dim, config.encoder_ffn)
    yield from _affine(f"{name}.norm_ff", dim)
    yield from _affine(f"{name}.norm_mha", dim)


def _estimator_entries(config: FlowConfig) -> Iterator[Entry]:
    name, channels, time = "decoder.estimator", config.channels, config.time_embedding_dim
    yield from _affine(f"{name}.time_mlp.linear_1", time, config.estimator_in_channels)
    yield from _affine(f"{name}.time_mlp.linear_2", time, time)
    yield from _estimator_stage(f"{name}.down_blocks.0", config.estimator_in_channels, config)
    yield from _affine(f"{name}.down_blocks.0.2", channels, channels, 3)
    for stage in range(config.mid_stages):
        yield from _estimator_stage(f"{name}.mid_blocks.{stage}", channels, config)
    yield from _estimator_stage(f"{name}.up_blocks.0", 2 * channels, config)
    yield from _affine(f"{name}.up_blocks.0.2", channels, channels, 3)
    yield from _affine(f"{name}.final_block.block.0", channels, channels, 3)
    yield from _affine(f"{name}.final_block.block.2", channels)
    yield from _affine(f"{name}.final_proj", config.mel_bins, channels, 1)


def _estimator_stage(name: str, in_channels: int, config: FlowConfig) -> Iterator[Entry]:
    """One resnet and its transformer blocks."""
    channels, inner = config.channels, config.estimator_heads * config.estimator_head_dim
    yield from _affine(f"{name}.0.mlp.1", channels, config.time_embedding_dim)
    yield from _affine(f"{name}.0.block1.block.0", channels, in_channels, 3)
    yield from _affine(f"{name}.0.block1.block.2", channels)
    yield from _affine(f"{name}.0.block2.block.0", channels, channels, 3)
    yield from _affine(f"{name}.0.block2.block.2", channels)
    yield from _affine(f"{name}.0.res_conv", channels, in_channels, 1)
    for index in range(config.blocks_per_stage):
        block = f"{name}.1.{index}"
        yield from _affine(f"{block}.norm1", channels)
        for linear in ("to_q", "to_k", "to_v"):
            yield f"{block}.attn1.{linear}.weight", (inner, channels)
        yield from _affine(f"{block}.attn1.to_out.0", channels, inner)
        yield from _affine(f"{block}.norm3", channels)
        yield from _affine(f"{block}.ff.net.0.proj", 4 * channels, channels)
        yield from _affine(f"{block}.ff.net.2", channels, 4 * channels)


def _weight_norm(name: str, bias: int, weight: Shape) -> list[Entry]:
    """A convolution stored as bias, magnitude (over dim 0) and direction."""
    magnitude = (weight[0], *([1] * (len(weight) - 1)))
    return [
        (f"{name}.bias", (bias,)),
        (f"{name}{MAGNITUDE}", magnitude),
        (f"{name}{DIRECTION}", weight),
    ]


def _vocoder_entries(config: VocoderConfig) -> Iterator[Entry]:
    stages = len(config.upsample_rates)
    widths = [config.base_channels >> stage for stage in range(stages + 1)]
    spectrum = config.istft_n_fft + 2
    yield from _affine("m_source.l_linear", 1, config.partials)
    yield from _weight_norm("conv_pre", widths[0], (widths[0], config.mel_bins, 7))
    for stage, kernel in enumerate(config.upsample_kernels):
        # A transposed convolution keeps its input channels in dim 0.
        yield from _weight_norm(f"ups.{stage}", widths[stage + 1], (widths[stage], widths[stage + 1], kernel))
    for stage, width in enumerate(widths[1:]):
        yield from _affine(f"source_downs.{stage}", width, spectrum, source_kernel(config, stage))
    for stage, width in enumerate(widths[1:]):
        kernel, dilations = config.source_resblock_kernels[stage], config.source_resblock_dilations[stage]
        yield from _resblock(f"source_resblocks.{stage}", width, kernel, len(dilations))
    blocks = list(zip(config.resblock_kernels, config.resblock_dilations, strict=True))
    for stage, width in enumerate(widths[1:]):
        for branch, (kernel, dilations) in enumerate(blocks):
            yield from _resblock(f"resblocks.{stage * len(blocks) + branch}", width, kernel, len(dilations))
    yield from _weight_norm("conv_post", spectrum, (spectrum, widths[-1], 7))
    f0_in = config.mel_bins
    for layer in range(0, 10, 2):
        yield from _weight_norm(f"f0_predictor.condnet.{layer}", config.f0_channels, (config.f0_channels, f0_in, 3))
        f0_in = config.f0_channels
    yield from _affine("f0_predictor.classifier", 1, config.f0_channels)


def source_kernel(config: VocoderConfig, stage: int) -> int:
    """Kernel that brings the source spectrum down to the rate of one upsampling stage."""
    stride = 1
    for rate in config.upsample_rates[stage + 1 :]:
        stride *= rate
    return 1 if stride == 1 else 2 * stride


def _resblock(name: str, width: int, kernel: int, dilations: int) -> Iterator[Entry]:
    for convs in ("convs1", "convs2"):
        for index in range(dilations):
            yield from _weight_norm(f"{name}.{convs}.{index}", width, (width, width, kernel))
    for activations in ("activations1", "activations2"):
        for index in range(dilations):
            yield f"{name}.{activations}.{index}.alpha", (width,)
