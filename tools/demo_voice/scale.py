"""Sizes of a run: how much is said, how large the networks are, how long each trains. Knows no stage's inside.

`toy` goes through all stages in under a minute, for tests; `cpu` is meant for a machine without a GPU, `gpu` for
one with.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cosyvoice_core.config import FlowConfig, LMConfig, ModelConfig, VocoderConfig
from tools.demo_voice.codec.network import TokenizerConfig
from tools.demo_voice.data.make import DataPlan
from tools.demo_voice.data.voices import TRAINING
from tools.demo_voice.flow.windows import WindowPlan
from tools.demo_voice.speaker.network import SpeakerConfig
from tools.demo_voice.text.train import TextPlan
from tools.demo_voice.trainer import Plan
from tools.demo_voice.vocoder.train import VocoderMix


@dataclass(frozen=True, slots=True)
class Plans:
    """How each stage trains."""

    tokenizer: Plan
    speaker: Plan
    lm: Plan
    flow: Plan
    vocoder: Plan


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """sentences: held-out ones; seeds: each is said with so many; pictures: sentences drawn side by side; timed: said
    one by one for figures of speed; served: the service speaks, not its modules in this process."""

    sentences: int
    seeds: int
    pictures: int = 3
    timed: int = 20
    served: bool = True

    def __post_init__(self) -> None:
        if min(self.sentences, self.seeds, self.pictures, self.timed) < 1:
            raise ValueError("sentences, seeds, pictures and timed must be at least 1")


@dataclass(frozen=True, slots=True)
class Scale:
    """Everything a run is made of. model: text rows and codes are put in once they are known."""

    name: str
    data: DataPlan
    tokenizer: TokenizerConfig
    speaker: SpeakerConfig
    text: TextPlan
    model: ModelConfig
    plans: Plans
    judge: JudgePlan
    windows: WindowPlan = field(default_factory=WindowPlan)
    mix: VocoderMix = field(default_factory=VocoderMix)

    def model_with(self, text_rows: int, codes: int) -> ModelConfig:
        """The dimensions for a text tokenizer and a code book of these sizes."""
        return replace(
            self.model,
            lm=replace(self.model.lm, text_rows=text_rows, speech_tokens=codes),
            flow=replace(self.model.flow, vocab_size=codes),
        )


_TOY = Scale(
    name="toy",
    data=DataPlan(sentences=48, held_out=12, shard=30, voices=4),
    tokenizer=TokenizerConfig(width=64, blocks=2),
    speaker=SpeakerConfig(width=32),
    text=TextPlan(merges=(200,), share=0.5),
    model=ModelConfig(
        lm=LMConfig(
            hidden=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate=128, rope_theta=1e4, max_positions=2048
        ),
        flow=FlowConfig(
            encoder_dim=48,
            encoder_heads=2,
            encoder_ffn=96,
            encoder_blocks=1,
            upsampled_blocks=1,
            channels=160,
            estimator_heads=2,
            estimator_head_dim=32,
            blocks_per_stage=1,
            mid_stages=1,
        ),
        vocoder=VocoderConfig(base_channels=32, f0_channels=24),
    ),
    plans=Plans(
        tokenizer=Plan(60, 6, 3e-3, warm_up=5),
        speaker=Plan(20, 6, 3e-3, warm_up=5),
        lm=Plan(40, 6, 4e-3, warm_up=5),
        flow=Plan(8, 3, 1e-3, warm_up=2),
        vocoder=Plan(8, 2, 2e-3, warm_up=2),
    ),
    judge=JudgePlan(sentences=2, seeds=1, pictures=1, timed=1, served=False),
    windows=WindowPlan(shortest=40, longest=60),
    mix=VocoderMix(frames=16, tuned_from=0.5, tuned=3, adversarial_from=0.75),
)

_CPU = Scale(
    name="cpu",
    data=DataPlan(sentences=20_000, held_out=150),
    tokenizer=TokenizerConfig(width=192, blocks=5),
    speaker=SpeakerConfig(width=128),
    text=TextPlan(),
    model=ModelConfig(
        lm=LMConfig(
            hidden=256, layers=6, heads=4, kv_heads=2, head_dim=64, intermediate=704, rope_theta=1e4, max_positions=4096
        ),
        flow=FlowConfig(
            encoder_dim=192,
            encoder_heads=4,
            encoder_ffn=512,
            encoder_blocks=2,
            upsampled_blocks=2,
            channels=192,
            estimator_heads=2,
            estimator_head_dim=64,
            blocks_per_stage=1,
            mid_stages=2,
        ),
        vocoder=VocoderConfig(base_channels=128, f0_channels=128),
    ),
    plans=Plans(
        tokenizer=Plan(3_000, 12, 2e-3),
        speaker=Plan(1_000, 16, 1e-3),
        lm=Plan(30_000, 10, 1.5e-3, warm_up=500),
        flow=Plan(20_000, 4, 7e-4, warm_up=200),
        vocoder=Plan(20_000, 4, 8e-4, warm_up=200),
    ),
    judge=JudgePlan(sentences=120, seeds=3),
    mix=VocoderMix(tuned=600),
)

_GPU = replace(
    _CPU,
    name="gpu",
    data=DataPlan(sentences=60_000, held_out=150, voices=len(TRAINING)),
    tokenizer=TokenizerConfig(width=224, blocks=6),
    model=replace(
        _CPU.model,
        lm=replace(_CPU.model.lm, hidden=256, layers=8),
        flow=replace(_CPU.model.flow, channels=208, mid_stages=2),
    ),
    plans=Plans(
        tokenizer=Plan(6_000, 48, 1e-3, warm_up=200),
        speaker=Plan(2_000, 48, 1e-3),
        lm=Plan(20_000, 96, 1e-3, warm_up=1_000, save_every=500),
        flow=Plan(30_000, 48, 7e-4, warm_up=500, save_every=500),
        vocoder=Plan(40_000, 24, 5e-4, warm_up=500, save_every=500),
    ),
    mix=VocoderMix(tuned_from=0.5, tuned=6_000, adversarial_from=0.3),
)

_SHARES = {"tokenizer": 0.08, "speaker": 0.04, "lm": 0.32, "flow": 0.32, "vocoder": 0.24}
"""Of the minutes that are given for training."""


def bounded(scale: Scale, minutes: float) -> Scale:
    """The scale with so many minutes for all training together, however many steps that is."""
    shares = {name: replace(getattr(scale.plans, name), minutes=minutes * share) for name, share in _SHARES.items()}
    return replace(scale, plans=Plans(**shares))


SCALES = {scale.name: scale for scale in (_TOY, _CPU, _GPU)}
