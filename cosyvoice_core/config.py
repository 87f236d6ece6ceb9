"""Dimensions and constants of a CosyVoice2 checkpoint, as frozen dataclasses checked at construction.

Knows no files: `checkpoint.settings` reads these from `cosyvoice2.yaml` and the Qwen2 `config.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """Repetition-aware sampling (RAS) of speech tokens; defaults are those of the official checkpoint.

    A window of 0 turns the treatment of repetitions off and leaves nucleus sampling.
    """

    top_p: float = 0.8
    top_k: int = 25
    window: int = 10
    tau: float = 0.1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _require(0.0 < self.top_p <= 1.0, f"top_p must be in (0, 1], got {self.top_p}")
        _require(self.top_k >= 1, f"top_k must be at least 1, got {self.top_k}")
        _require(self.window >= 0, f"window must not be negative, got {self.window}")
        _require(self.tau >= 0.0, f"tau must not be negative, got {self.tau}")
        _require(self.temperature > 0.0, f"temperature must be positive, got {self.temperature}")


@dataclass(frozen=True, slots=True)
class LMConfig:
    """Qwen2 body and speech head. Defaults: CosyVoice2-0.5B."""

    hidden: int = 896
    layers: int = 24
    heads: int = 14
    kv_heads: int = 2
    head_dim: int = 64
    intermediate: int = 4864
    rms_eps: float = 1e-6
    rope_theta: float = 1e6
    text_rows: int = 151936
    speech_tokens: int = 6561
    max_positions: int = 32768
    text_block: int = 5
    speech_block: int = 15
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        _require(self.heads % self.kv_heads == 0, f"heads {self.heads} not a multiple of kv_heads {self.kv_heads}")
        _require(self.head_dim % 2 == 0, f"head_dim must be even, got {self.head_dim}")
        for name in (
            "hidden",
            "layers",
            "intermediate",
            "text_rows",
            "speech_tokens",
            "text_block",
            "speech_block",
        ):
            _require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """Token encoder, estimator and ODE solver. Defaults: CosyVoice2-0.5B."""

    vocab_size: int = 6561
    mel_bins: int = 80
    speaker_dim: int = 192
    encoder_dim: int = 512
    encoder_heads: int = 8
    encoder_ffn: int = 2048
    encoder_blocks: int = 6
    upsampled_blocks: int = 4
    lookahead_tokens: int = 3
    chunk_tokens: int = 25
    mel_ratio: int = 2
    channels: int = 256
    estimator_heads: int = 8
    estimator_head_dim: int = 64
    blocks_per_stage: int = 4
    mid_stages: int = 12
    ode_steps: int = 10
    cfg_rate: float = 0.7

    def __post_init__(self) -> None:
        _require(
            self.encoder_dim % (2 * self.encoder_heads) == 0,
            f"encoder_dim {self.encoder_dim} must be a multiple of twice encoder_heads {self.encoder_heads}",
        )
        for name in ("vocab_size", "chunk_tokens", "mel_ratio", "channels", "ode_steps", "lookahead_tokens"):
            _require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")

    @property
    def chunk_frames(self) -> int:
        return self.chunk_tokens * self.mel_ratio

    @property
    def estimator_in_channels(self) -> int:
        """x, mu, speaker and condition, stacked over channels."""
        return 4 * self.mel_bins

    @property
    def time_embedding_dim(self) -> int:
        return 4 * self.channels


@dataclass(frozen=True, slots=True)
class VocoderConfig:
    """HiFT generator with its F0 predictor. Defaults: CosyVoice2-0.5B."""

    mel_bins: int = 80
    base_channels: int = 512
    harmonics: int = 8
    sample_rate: int = 24000
    sine_amplitude: float = 0.1
    noise_sigma: float = 0.003
    voiced_threshold_hz: float = 10.0
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    upsample_kernels: tuple[int, ...] = (16, 11, 7)
    istft_n_fft: int = 16
    istft_hop: int = 4
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernels: tuple[int, ...] = (7, 7, 11)
    source_resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    lrelu_slope: float = 0.1
    audio_limit: float = 0.99
    f0_channels: int = 512

    def __post_init__(self) -> None:
        stages = len(self.upsample_rates)
        _require(len(self.upsample_kernels) == stages, "one upsample kernel per upsample rate is needed")
        _require(len(self.source_resblock_kernels) == stages, "one source resblock per upsample rate is needed")
        _require(
            self.base_channels % (1 << stages) == 0,
            f"base_channels {self.base_channels} must divide by {1 << stages}",
        )

    @property
    def samples_per_frame(self) -> int:
        product = self.istft_hop
        for rate in self.upsample_rates:
            product *= rate
        return product

    @property
    def partials(self) -> int:
        """The fundamental and its harmonics."""
        return self.harmonics + 1


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything the three stages need to be built."""

    lm: LMConfig = field(default_factory=LMConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    sample_rate: int = 24000
    token_rate: int = 25

    def __post_init__(self) -> None:
        frame_rate = self.token_rate * self.flow.mel_ratio
        _require(
            self.vocoder.samples_per_frame * frame_rate == self.sample_rate,
            f"{self.vocoder.samples_per_frame} samples per frame at {frame_rate} frames/s is not {self.sample_rate} Hz",
        )

    @property
    def frame_rate(self) -> int:
        """Mel frames per second."""
        return self.token_rate * self.flow.mel_ratio
