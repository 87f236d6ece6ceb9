"""From `cosyvoice2.yaml` and the Qwen2 `config.json` to a ModelConfig.

Knows which values this architecture supports and refuses every other by name. Does not load weights; only the number
of upsampled encoder blocks, which the official file leaves out, may be counted in the keys of `flow.pt`.
Source: docs/model.md, "Checkpoint files".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.plain_yaml import read_plain_yaml
from cosyvoice_core.checkpoint.section import Section
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import FlowConfig, LMConfig, ModelConfig, SamplingConfig, VocoderConfig
from cosyvoice_core.errors import CheckpointError

OFFICIAL = ModelConfig()
UPSAMPLED_BLOCKS_KEY = "num_up_blocks"
"""Our own addition to the encoder's keys; the original has no such key because it always has four blocks."""

_PROMPT_MEL = {
    "n_fft": 1920,
    "num_mels": OFFICIAL.flow.mel_bins,
    "sampling_rate": OFFICIAL.sample_rate,
    "hop_size": 480,
    "win_size": 1920,
    "fmin": 0,
    "fmax": 8000,
    "center": False,
}
_ENCODER = {
    "normalize_before": True,
    "input_layer": "linear",
    "pos_enc_layer_type": "rel_pos_espnet",
    "selfattention_layer_type": "rel_selfattn",
    "use_cnn_module": False,
    "macaron_style": False,
}
_MAX_JSON = 1 << 20


def read_model_config(directory: Path, *, upsampled_blocks: int | None = None) -> ModelConfig:
    """Read the dimensions of a checkpoint directory.

    `upsampled_blocks` says how many encoder blocks stand after the upsampling; None takes it from the settings, and
    where they are silent, as the official ones are, from `flow.pt`.

    Raises CheckpointError that names the key, its value and what is supported.
    """
    checkpoint = CheckpointDirectory(directory)
    checkpoint.check_family()
    root = Section(read_plain_yaml(checkpoint.settings), str(checkpoint.settings))
    flow = root.section("flow")
    hift = root.section("hift")
    llm = root.section("llm", optional=True)
    root.expect("sample_rate", OFFICIAL.sample_rate)
    root.expect("token_frame_rate", OFFICIAL.token_rate)
    root.expect("token_mel_ratio", OFFICIAL.flow.mel_ratio)
    root.expect("num_decoding_left_chunks", -1)
    _expect_all(root.section("feat_extractor", optional=True), _PROMPT_MEL)
    try:
        flow_config = _flow_config(root, flow, checkpoint.flow, upsampled_blocks)
        lm_config = _lm_config(root, llm, checkpoint.lm_config, flow_config.vocab_size)
        return ModelConfig(lm=lm_config, flow=flow_config, vocoder=_vocoder_config(hift))
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.settings}: {error}") from error


def read_lm_config(
    hf_config_json: Path,
    *,
    speech_tokens: int = OFFICIAL.lm.speech_tokens,
    text_block: int = OFFICIAL.lm.text_block,
    speech_block: int = OFFICIAL.lm.speech_block,
    sampling: SamplingConfig = OFFICIAL.lm.sampling,
) -> LMConfig:
    """Read the Qwen2 body's dimensions; what the speech side adds is passed in.

    Raises CheckpointError that names the key, its value and what is supported.
    """
    values = Section(_read_json(hf_config_json), str(hf_config_json))
    values.expect("model_type", "qwen2")
    values.expect("hidden_act", "silu")
    values.expect("use_sliding_window", False)
    values.expect("rope_scaling", None)
    rope = values.section("rope_parameters", optional=True)
    rope.expect("rope_type", "default")
    hidden, heads = values.integer("hidden_size"), values.integer("num_attention_heads")
    if "head_dim" not in values and hidden % heads:
        raise values.error("num_attention_heads", f"is {heads}, which does not divide hidden_size {hidden}")
    try:
        return LMConfig(
            hidden=hidden,
            layers=values.integer("num_hidden_layers"),
            heads=heads,
            kv_heads=values.integer("num_key_value_heads", heads),
            head_dim=values.integer("head_dim", hidden // heads),
            intermediate=values.integer("intermediate_size"),
            rms_eps=values.number("rms_norm_eps"),
            rope_theta=(rope if "rope_theta" in rope else values).number("rope_theta"),
            text_rows=values.integer("vocab_size"),
            speech_tokens=speech_tokens,
            max_positions=values.integer("max_position_embeddings", OFFICIAL.lm.max_positions),
            text_block=text_block,
            speech_block=speech_block,
            sampling=sampling,
        )
    except ValueError as error:
        raise CheckpointError(f"{hf_config_json}: {error}") from error


def count_upsampled_blocks(flow_keys: list[str]) -> int:
    """Encoder blocks after the upsampling, by the keys of `flow.pt`; 0 when it names none."""
    found = (re.match(r"encoder\.up_encoders\.(\d{1,4})\.", key) for key in flow_keys)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _expect_all(section: Section, supported: Mapping[str, object]) -> None:
    for key, value in supported.items():
        section.expect(key, value)


def _lm_config(root: Section, llm: Section, config_json: Path, flow_tokens: int) -> LMConfig:
    """Settings without an `llm` part, as some exports have, mean the official speech side."""
    default = OFFICIAL.lm
    speech_tokens = llm.integer("speech_token_size", flow_tokens)
    if speech_tokens != flow_tokens:
        raise llm.error("speech_token_size", f"is {speech_tokens}, but flow.vocab_size is {flow_tokens}")
    mix = llm.integers("mix_ratio", (default.text_block, default.speech_block))
    if len(mix) != 2:
        raise llm.error("mix_ratio", f"has {len(mix)} numbers, expected two: text and speech tokens per block")
    sampling = llm.section("sampling", optional=True)
    try:
        ras = SamplingConfig(
            top_p=sampling.number("top_p", default.sampling.top_p),
            top_k=sampling.integer("top_k", default.sampling.top_k),
            window=sampling.integer("win_size", default.sampling.window, least=0),
            tau=sampling.number("tau_r", default.sampling.tau),
        )
    except ValueError as error:
        raise CheckpointError(f"{sampling.source}: {sampling.name}: {error}") from error
    config = read_lm_config(
        config_json, speech_tokens=speech_tokens, text_block=mix[0], speech_block=mix[1], sampling=ras
    )
    for part in (root, llm):
        for key in ("llm_input_size", "llm_output_size"):
            part.agree(key, config.hidden, f"hidden_size in {config_json.name}")
    return config


def _flow_config(root: Section, flow: Section, flow_pt: Path, upsampled_blocks: int | None) -> FlowConfig:
    encoder, decoder = flow.section("encoder"), flow.section("decoder")
    estimator, solver = decoder.section("estimator"), decoder.section("cfm_params", optional=True)
    if "content" in solver:
        solver = solver.section("content")
    default = OFFICIAL.flow
    dim = encoder.integer("output_size")
    chunk = root.integer("chunk_size", default.chunk_tokens)
    ratio = flow.integer("token_mel_ratio", default.mel_ratio)
    speaker_dim = flow.integer("spk_embed_dim", default.speaker_dim)
    encoder.agree("input_size", dim, "encoder.output_size; other widths of the embedding are not supported")
    flow.agree("input_size", dim, "encoder.output_size; other widths of the embedding are not supported")
    root.agree("spk_embed_dim", speaker_dim, "flow.spk_embed_dim")
    _expect_all(
        flow,
        {
            "output_size": default.mel_bins,
            "input_frame_rate": OFFICIAL.token_rate,
            "token_mel_ratio": default.mel_ratio,
        },
    )
    _expect_all(encoder, _ENCODER)
    encoder.agree("static_chunk_size", chunk, "chunk_size")
    _expect_all(decoder, {"n_spks": 1, "spk_emb_dim": default.mel_bins})
    _expect_all(solver, {"solver": "euler", "t_scheduler": "cosine"})
    _expect_all(estimator, {"out_channels": default.mel_bins, "act_fn": "gelu", "causal": True})
    estimator.expect("in_channels", default.estimator_in_channels)
    estimator.expect("num_decoding_left_chunks", -1)
    estimator.agree("static_chunk_size", chunk * ratio, "chunk_size times token_mel_ratio")
    channels = estimator.integers("channels")
    if len(channels) != 1:
        raise estimator.error("channels", f"is {list(channels)}; only one entry is supported (no resampling in time)")
    return FlowConfig(
        vocab_size=flow.integer("vocab_size"),
        speaker_dim=speaker_dim,
        encoder_dim=dim,
        encoder_heads=encoder.integer("attention_heads"),
        encoder_ffn=encoder.integer("linear_units"),
        encoder_blocks=encoder.integer("num_blocks"),
        upsampled_blocks=upsampled_blocks or _upsampled_blocks(encoder, flow_pt, dim),
        lookahead_tokens=flow.integer("pre_lookahead_len", default.lookahead_tokens),
        chunk_tokens=chunk,
        channels=channels[0],
        estimator_heads=estimator.integer("num_heads"),
        estimator_head_dim=estimator.integer("attention_head_dim"),
        blocks_per_stage=estimator.integer("n_blocks"),
        mid_stages=estimator.integer("num_mid_blocks"),
        cfg_rate=solver.number("inference_cfg_rate", default.cfg_rate),
    )


def _upsampled_blocks(encoder: Section, flow_pt: Path, dim: int) -> int:
    official = OFFICIAL.flow
    if UPSAMPLED_BLOCKS_KEY in encoder:
        return encoder.integer(UPSAMPLED_BLOCKS_KEY)
    # The original fixes width and block count together: at its width a file with fewer blocks is a damaged one.
    if dim == official.encoder_dim or not flow_pt.is_file():
        return official.upsampled_blocks
    return count_upsampled_blocks(list(read_state(flow_pt, mapped=True))) or official.upsampled_blocks


def _vocoder_config(hift: Section) -> VocoderConfig:
    default = OFFICIAL.vocoder
    f0, istft = hift.section("f0_predictor"), hift.section("istft_params", optional=True)
    _expect_all(hift, {"in_channels": default.mel_bins, "sampling_rate": default.sample_rate})
    _expect_all(f0, {"num_class": 1, "in_channels": default.mel_bins})
    config = VocoderConfig(
        base_channels=hift.integer("base_channels"),
        harmonics=hift.integer("nb_harmonics", default.harmonics, least=0),
        sine_amplitude=hift.number("nsf_alpha", default.sine_amplitude),
        noise_sigma=hift.number("nsf_sigma", default.noise_sigma),
        voiced_threshold_hz=hift.number("nsf_voiced_threshold", default.voiced_threshold_hz),
        upsample_rates=hift.integers("upsample_rates"),
        upsample_kernels=hift.integers("upsample_kernel_sizes"),
        istft_n_fft=istft.integer("n_fft", default.istft_n_fft),
        istft_hop=istft.integer("hop_len", default.istft_hop),
        resblock_kernels=hift.integers("resblock_kernel_sizes", default.resblock_kernels),
        resblock_dilations=hift.integer_rows("resblock_dilation_sizes", default.resblock_dilations),
        source_resblock_kernels=hift.integers("source_resblock_kernel_sizes", default.source_resblock_kernels),
        source_resblock_dilations=hift.integer_rows(
            "source_resblock_dilation_sizes", default.source_resblock_dilations
        ),
        lrelu_slope=hift.number("lrelu_slope", default.lrelu_slope),
        audio_limit=hift.number("audio_limit", default.audio_limit),
        f0_channels=f0.integer("cond_channels"),
    )
    if len(config.resblock_dilations) != len(config.resblock_kernels):
        raise hift.error(
            "resblock_dilation_sizes", f"needs one list for each of {len(config.resblock_kernels)} kernels"
        )
    if len(config.source_resblock_dilations) != len(config.upsample_rates):
        raise hift.error(
            "source_resblock_dilation_sizes", f"needs one list for each of {len(config.upsample_rates)} upsample_rates"
        )
    return config


def _read_json(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise CheckpointError(f"{path}: larger than {_MAX_JSON} bytes, which no config file needs")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); expected a Qwen2 config") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values
