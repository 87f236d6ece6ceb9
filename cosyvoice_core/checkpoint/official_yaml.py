"""The text of a `cosyvoice2.yaml` for any dimensions, with the official keys and tags.

Only formats; what is written here `settings.py` reads back, and so does whoever else reads official checkpoints.
Source: docs/model.md, "Checkpoint files".
"""

from __future__ import annotations

from collections.abc import Iterable

from cosyvoice_core.checkpoint.settings import OFFICIAL, UPSAMPLED_BLOCKS_KEY
from cosyvoice_core.config import FlowConfig, LMConfig, ModelConfig, VocoderConfig


def official_yaml(config: ModelConfig) -> str:
    """Settings file of a checkpoint with these dimensions."""
    flow = config.flow
    top = [
        f"sample_rate: {config.sample_rate}",
        f"llm_input_size: {config.lm.hidden}",
        f"llm_output_size: {config.lm.hidden}",
        f"spk_embed_dim: {flow.speaker_dim}",
        "qwen_pretrain_path: ''",
        f"token_frame_rate: {config.token_rate}",
        f"token_mel_ratio: {flow.mel_ratio}",
        f"chunk_size: {flow.chunk_tokens}",
        "num_decoding_left_chunks: -1",
    ]
    parts = [*_llm(config.lm), *_flow(flow), *_hift(config.vocoder), *_features(flow.mel_bins)]
    return "\n".join([*top, "", *parts]) + "\n"


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _numbers(values: Iterable[int]) -> str:
    return f"[{', '.join(map(str, values))}]"


def _rows(values: Iterable[Iterable[int]]) -> str:
    return f"[{', '.join(map(_numbers, values))}]"


def _llm(config: LMConfig) -> list[str]:
    return [
        "llm: !new:cosyvoice.llm.llm.Qwen2LM",
        *_indented(
            [
                "llm_input_size: !ref <llm_input_size>",
                "llm_output_size: !ref <llm_output_size>",
                f"speech_token_size: {config.speech_tokens}",
                "length_normalized_loss: True",
                "lsm_weight: 0",
                f"mix_ratio: {_numbers((config.text_block, config.speech_block))}",
                "llm: !new:cosyvoice.llm.llm.Qwen2Encoder",
                "    pretrain_path: !ref <qwen_pretrain_path>",
                "sampling: !name:cosyvoice.utils.common.ras_sampling",
                *_indented(
                    [
                        f"top_p: {config.sampling.top_p!r}",
                        f"top_k: {config.sampling.top_k}",
                        f"win_size: {config.sampling.window}",
                        f"tau_r: {config.sampling.tau!r}",
                    ]
                ),
            ]
        ),
        "",
    ]


def _flow(config: FlowConfig) -> list[str]:
    return [
        "flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec",
        *_indented(
            [
                f"input_size: {config.encoder_dim}",
                f"output_size: {config.mel_bins}",
                "spk_embed_dim: !ref <spk_embed_dim>",
                "output_type: 'mel'",
                f"vocab_size: {config.vocab_size}",
                "input_frame_rate: !ref <token_frame_rate>",
                "only_mask_loss: True",
                "token_mel_ratio: !ref <token_mel_ratio>",
                f"pre_lookahead_len: {config.lookahead_tokens}",
                "encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder",
                *_indented(_encoder(config)),
                "decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM",
                *_indented(_decoder(config)),
            ]
        ),
        "",
    ]


def _encoder(config: FlowConfig) -> list[str]:
    official = (config.encoder_dim, config.upsampled_blocks) == (
        OFFICIAL.flow.encoder_dim,
        OFFICIAL.flow.upsampled_blocks,
    )
    return [
        f"output_size: {config.encoder_dim}",
        f"attention_heads: {config.encoder_heads}",
        f"linear_units: {config.encoder_ffn}",
        f"num_blocks: {config.encoder_blocks}",
        *([] if official else [f"{UPSAMPLED_BLOCKS_KEY}: {config.upsampled_blocks}"]),
        "dropout_rate: 0.1",
        "positional_dropout_rate: 0.1",
        "attention_dropout_rate: 0.1",
        "normalize_before: True",
        "input_layer: 'linear'",
        "pos_enc_layer_type: 'rel_pos_espnet'",
        "selfattention_layer_type: 'rel_selfattn'",
        f"input_size: {config.encoder_dim}",
        "use_cnn_module: False",
        "macaron_style: False",
        "static_chunk_size: !ref <chunk_size>",
    ]


def _decoder(config: FlowConfig) -> list[str]:
    return [
        f"in_channels: {3 * config.mel_bins}",
        "n_spks: 1",
        f"spk_emb_dim: {config.mel_bins}",
        "cfm_params: !new:omegaconf.DictConfig",
        "    content:",
        *_indented(
            _indented(
                [
                    "sigma_min: 1e-06",
                    "solver: 'euler'",
                    "t_scheduler: 'cosine'",
                    "training_cfg_rate: 0.2",
                    f"inference_cfg_rate: {config.cfg_rate!r}",
                    "reg_loss_type: 'l1'",
                ]
            )
        ),
        "estimator: !new:cosyvoice.flow.decoder.CausalConditionalDecoder",
        *_indented(
            [
                f"in_channels: {config.estimator_in_channels}",
                f"out_channels: {config.mel_bins}",
                f"channels: {_numbers([config.channels])}",
                "dropout: 0.0",
                f"attention_head_dim: {config.estimator_head_dim}",
                f"n_blocks: {config.blocks_per_stage}",
                f"num_mid_blocks: {config.mid_stages}",
                f"num_heads: {config.estimator_heads}",
                "act_fn: 'gelu'",
                "static_chunk_size: !ref <chunk_size> * <token_mel_ratio>",
                "num_decoding_left_chunks: !ref <num_decoding_left_chunks>",
            ]
        ),
    ]


def _hift(config: VocoderConfig) -> list[str]:
    return [
        "hift: !new:cosyvoice.hifigan.generator.HiFTGenerator",
        *_indented(
            [
                f"in_channels: {config.mel_bins}",
                f"base_channels: {config.base_channels}",
                f"nb_harmonics: {config.harmonics}",
                "sampling_rate: !ref <sample_rate>",
                f"nsf_alpha: {config.sine_amplitude!r}",
                f"nsf_sigma: {config.noise_sigma!r}",
                f"nsf_voiced_threshold: {config.voiced_threshold_hz!r}",
                f"upsample_rates: {_numbers(config.upsample_rates)}",
                f"upsample_kernel_sizes: {_numbers(config.upsample_kernels)}",
                "istft_params:",
                f"    n_fft: {config.istft_n_fft}",
                f"    hop_len: {config.istft_hop}",
                f"resblock_kernel_sizes: {_numbers(config.resblock_kernels)}",
                f"resblock_dilation_sizes: {_rows(config.resblock_dilations)}",
                f"source_resblock_kernel_sizes: {_numbers(config.source_resblock_kernels)}",
                f"source_resblock_dilation_sizes: {_rows(config.source_resblock_dilations)}",
                f"lrelu_slope: {config.lrelu_slope!r}",
                f"audio_limit: {config.audio_limit!r}",
                "f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor",
                "    num_class: 1",
                f"    in_channels: {config.mel_bins}",
                f"    cond_channels: {config.f0_channels}",
            ]
        ),
        "",
    ]


def _features(mel_bins: int) -> list[str]:
    return [
        "allowed_special: 'all'",
        "feat_extractor: !name:matcha.utils.audio.mel_spectrogram",
        *_indented(
            [
                "n_fft: 1920",
                f"num_mels: {mel_bins}",
                "sampling_rate: !ref <sample_rate>",
                "hop_size: 480",
                "win_size: 1920",
                "fmin: 0",
                "fmax: 8000",
                "center: False",
            ]
        ),
    ]
