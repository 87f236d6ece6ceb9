"""Stage `vocoder`: mel to sound; first on recordings' mel, then on what the flow makes of their tokens.

The flow's mel is a little blurred. A vocoder that has heard only recordings makes noise of that; tuned on the flow's
own frames, which belong to the same samples, it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cosyvoice_core.checkpoint.tensors import load_plain
from cosyvoice_core.config import FlowConfig, VocoderConfig
from cosyvoice_core.vocoder import SourceNoise, Vocoder
from tools.demo_voice.data.corpus import Corpus, FloatArray
from tools.demo_voice.flow.train import load_flow, prompt_for, spoken_mel
from tools.demo_voice.trainer import Machine, Part, Plan, Step, Trainer, save_atomically
from tools.demo_voice.vocoder.adversary import Adversary, adversary_loss, fooling_losses
from tools.demo_voice.vocoder.loss import mel_distance, pitch_distance, spectra_distance
from tools.demo_voice.vocoder.network import vocode

STATE = "hift.pt"
_FLOW_MEL = "flow_mel.pt"
_PITCH_RATE = 1e-3
_MOST_JUDGED = 12


@dataclass(frozen=True, slots=True)
class VocoderMix:
    """frames: of a piece; tuned_from: the progress from which half of the pieces are the flow's mel; tuned: how many
    utterances the flow speaks for that; adversarial_from: the progress from which discriminators train along, 1 for
    never."""

    frames: int = 48
    tuned_from: float = 0.6
    tuned: int = 1500
    adversarial_from: float = 1.0

    def __post_init__(self) -> None:
        if self.frames < 8 or self.tuned < 1:
            raise ValueError(f"need frames >= 8 and tuned >= 1, got {self.frames} and {self.tuned}")
        if not (0.0 <= self.tuned_from <= 1.0 and 0.0 <= self.adversarial_from <= 1.0):
            raise ValueError("tuned_from and adversarial_from must be in 0..1")


@dataclass(frozen=True, slots=True)
class Pieces:
    """mel (B, 80, T), pitch (B, T) in Hz and the wave (B, 480 T) they belong to."""

    mel: Tensor
    pitch: Tensor
    wave: Tensor

    @classmethod
    def drawn(
        cls, corpus: Corpus, numbers: list[int], spoken: dict[int, Tensor], frames: int, random: np.random.Generator
    ) -> Pieces:
        """A random piece of each utterance; its mel as the flow spoke it where that is in `spoken`."""
        rows = []
        for number in numbers:
            mel = spoken[number].float().numpy() if number in spoken else corpus.mel(number)
            first = int(random.integers(max(1, len(mel) - frames + 1)))
            wave = corpus.wave(number)[480 * first : 480 * (first + frames)]
            piece = (mel[first : first + frames].T, corpus.pitch(number)[first : first + frames], wave)
            rows.append(
                tuple(_lengthened(part, size) for part, size in zip(piece, (frames, frames, 480 * frames), strict=True))
            )
        joined = [torch.from_numpy(np.stack(parts)) for parts in zip(*rows, strict=True)]
        return cls(*joined)

    def to(self, device: torch.device) -> Pieces:
        return Pieces(self.mel.to(device), self.pitch.to(device), self.wave.to(device))


class _Generator(nn.Module):
    """The parts of a vocoder that its optimiser trains: all but the pitch predictor."""

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.generator, self.m_source = vocoder.generator, vocoder.m_source


def train_vocoder(
    folder: Path,
    corpus: Corpus,
    config: VocoderConfig,
    plan: Plan,
    seed: int,
    flow: tuple[Path, FlowConfig],
    mix: VocoderMix | None = None,
) -> dict[str, float]:
    """Run the stage and write its tensors; flow: where that stage's are, and their dimensions."""
    folder.mkdir(parents=True, exist_ok=True)
    machine, mix = Machine.here(), mix or VocoderMix()
    torch.manual_seed(seed)
    vocoder = Vocoder(config).to(machine.device).requires_grad_(True)
    adversary = Adversary().to(machine.device)
    parts = {
        "generator": Part.adamw(_Generator(vocoder), plan.learning_rate, (0.8, 0.99)),
        "pitch": Part.adamw(vocoder.f0_predictor, _PITCH_RATE),
        "adversary": Part.adamw(adversary, plan.learning_rate, (0.8, 0.99)),
    }
    training = corpus.numbers(held_out=False)

    @cache
    def spoken() -> dict[int, Tensor]:
        return flow_mels(folder, corpus, flow, mix.tuned, seed)

    def step(now: Step) -> dict[str, Tensor]:
        # Not before it is needed: the flow may still be training until then.
        tuned = spoken() if now.progress >= mix.tuned_from and bool(now.random.random() < 0.5) else {}
        numbers = now.random.choice(sorted(tuned) or training, plan.batch).tolist()
        pieces = Pieces.drawn(corpus, numbers, tuned, mix.frames, now.random).to(machine.device)
        pitch = pitch_distance(vocoder.f0_predictor(pieces.mel), pieces.pitch.double())
        parts["pitch"].descend(pitch, plan.clip)
        # In full precision: what rounding does to magnitudes and phases would be heard.
        speech = vocode(vocoder, pieces.mel, pieces.pitch)
        losses = {"spectra": spectra_distance(speech, pieces.wave), "mel": mel_distance(speech, pieces.wave)}
        total = losses["spectra"] + losses["mel"]
        if now.progress >= mix.adversarial_from:
            parts["adversary"].descend(adversary_loss(adversary, speech, pieces.wave), plan.clip)
            scores, features = fooling_losses(adversary, speech, pieces.wave)
            total = total + 0.1 * scores + features
            losses["features"] = features
        parts["generator"].descend(total, plan.clip)
        return {**losses, "pitch": pitch}

    Trainer(folder, parts, plan, seed, "vocoder").run(step)
    vocoder = vocoder.cpu().requires_grad_(False).eval()
    save_atomically(vocoder_state(vocoder), folder / STATE)
    judged = (corpus.numbers(held_out=True) or training)[:_MOST_JUDGED]
    return {"held-out distance of log mel": float(np.mean([_copy_distance(vocoder, corpus, each) for each in judged]))}


def vocoder_state(vocoder: Vocoder) -> dict[str, Tensor]:
    """Tensors under the names of `hift.pt`, before weight norm is written."""
    parts = {
        **dict(vocoder.generator.named_children()),
        "f0_predictor": vocoder.f0_predictor,
        "m_source": vocoder.m_source,
    }
    return {f"{name}.{key}": value.clone() for name, part in parts.items() for key, value in part.state_dict().items()}


def flow_mels(folder: Path, corpus: Corpus, flow: tuple[Path, FlowConfig], count: int, seed: int) -> dict[int, Tensor]:
    """Mel (2 n, 80) of so many utterances as the flow speaks their tokens; kept in the folder once made."""
    path = folder / _FLOW_MEL
    if path.is_file():
        kept = load_plain(path)
        assert isinstance(kept, dict)
        return kept
    model = load_flow(*flow, device=Machine.here().device)
    random = np.random.default_rng([seed, 4])
    training, voices = corpus.numbers(held_out=False), corpus.by_voice()
    chosen = random.permutation(training)[:count].tolist()
    spoken = {}
    for place, number in enumerate(tqdm(chosen, desc="flow speaks", disable=None)):
        prompt = prompt_for(corpus, voices, number, random)
        mel = spoken_mel(model, corpus, number, prompt, streaming=place % 2 == 0)
        spoken[int(number)] = torch.from_numpy(mel).half()
    save_atomically(spoken, path)
    return spoken


def _lengthened(part: FloatArray, size: int) -> FloatArray:
    """With its last value repeated up to `size` along the last axis; a short utterance has no longer piece."""
    missing = size - part.shape[-1]
    return np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, missing)], mode="edge") if missing else part


def _copy_distance(vocoder: Vocoder, corpus: Corpus, number: int) -> float:
    mel = torch.from_numpy(corpus.mel(number).T.copy())[None]
    speech = vocoder.vocode(mel, SourceNoise(number))
    return float(mel_distance(speech, torch.from_numpy(corpus.wave(number))[None]))
