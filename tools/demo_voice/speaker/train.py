"""Stage `speaker`: vectors that tell the teachers' voices apart and say how high and how large a voice is.

Recordings played faster or slower have pitch and formants that are known exactly and that no teacher has: they fill the
space between the voices, so that a voice never heard finds its own place. Vectors of all utterances are kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from cosyvoice_core.audio.features import MEL_RATE, TOKENIZER_RATE, speaker_fbank
from cosyvoice_core.audio.resample import resample
from cosyvoice_core.voice.speaker import SpeakerEncoder
from tools.demo_voice.data.corpus import Corpus, FloatArray
from tools.demo_voice.data.statistics import SCALE, TYPICAL, voice_statistics
from tools.demo_voice.speaker.network import VECTOR, SpeakerConfig, SpeakerNetwork, write_speaker_encoder
from tools.demo_voice.trainer import Machine, Part, Plan, Step, Trainer

SPEAKER = "speaker"
ONNX = "campplus.onnx"
_SECONDS = 1.6
_RATES = (13500, 14200, 15000, 17000, 18000, 19000)
"""Rates that a recording at 16 kHz may be taken for: 16 % lower to 19 % higher."""


class _Heads(nn.Module):
    """The encoder and what it is trained by."""

    def __init__(self, network: SpeakerNetwork, voices: int) -> None:
        super().__init__()
        self.network = network
        self.voice = nn.Linear(VECTOR, voices)
        self.statistics = nn.Linear(VECTOR, len(SCALE))


def train_speaker(folder: Path, corpus: Corpus, config: SpeakerConfig, plan: Plan, seed: int) -> dict[str, float]:
    """Run the stage; returns its figures, measured on held-out utterances."""
    machine = Machine.here()
    torch.manual_seed(seed)
    names = sorted({utterance.voice for utterance in corpus.utterances})
    network = SpeakerNetwork(config)
    heads = _Heads(network, len(names)).to(machine.device)
    part = Part.adamw(heads, plan.learning_rate)
    training, judged = corpus.numbers(held_out=False), corpus.numbers(held_out=True)
    known = {
        number: voice_statistics(corpus.wave(number), corpus.pitch(number))
        for number in tqdm(training, desc="voice statistics", disable=None)
    }

    def step(now: Step) -> dict[str, Tensor]:
        chosen = now.random.choice(training, plan.batch).tolist()
        plain = torch.stack([_fbank(_piece(_wave16k(corpus, number), now.random)) for number in chosen])
        rates = now.random.choice(_RATES, plan.batch).tolist()
        moved = torch.stack(
            [
                _fbank(_piece(resample(_wave16k(corpus, number), rate, TOKENIZER_RATE), now.random))
                for number, rate in zip(chosen, rates, strict=True)
            ]
        )
        vectors = network(plain.to(machine.device)), network(moved.to(machine.device))
        labels = torch.tensor([names.index(corpus.utterances[number].voice) for number in chosen])
        goals = [
            torch.from_numpy(np.stack([_goal(known[number], TOKENIZER_RATE / rate) for number, rate in pairs]))
            for pairs in (((n, TOKENIZER_RATE) for n in chosen), zip(chosen, rates, strict=True))
        ]
        losses = {
            "voice": F.cross_entropy(heads.voice(vectors[0]), labels.to(machine.device)),
            "statistics": sum(
                (
                    F.smooth_l1_loss(heads.statistics(vector), goal.to(machine.device))
                    for vector, goal in zip(vectors, goals, strict=True)
                ),
                torch.zeros((), device=machine.device),
            ),
        }
        part.descend(losses["voice"] + losses["statistics"], plan.clip)
        return losses

    Trainer(folder, {"heads": part}, plan, seed, "speaker").run(step)
    heads = heads.cpu().eval()
    path = folder / ONNX
    write_speaker_encoder(network, path)
    encoder = SpeakerEncoder(path)
    vectors = {number: encoder.embedding(_wave16k(corpus, number)) for number in range(len(corpus))}
    corpus.write_derived(SPEAKER, vectors, per_token=False)
    asked = judged or training
    with torch.inference_mode():
        answers = heads.voice(torch.from_numpy(np.stack([vectors[number] for number in asked]))).argmax(1).tolist()
    right = [names[answer] == corpus.utterances[number].voice for answer, number in zip(answers, asked, strict=True)]
    return {"voices": float(len(names)), "voices told apart": float(np.mean(right))}


def _wave16k(corpus: Corpus, number: int) -> FloatArray:
    return resample(corpus.wave(number), MEL_RATE, TOKENIZER_RATE)


def _piece(wave16k: FloatArray, random: np.random.Generator) -> FloatArray:
    """A piece of fixed length from anywhere; a shorter recording is repeated."""
    length = int(_SECONDS * TOKENIZER_RATE)
    wave16k = np.tile(wave16k, -(-length // len(wave16k)))
    first = int(random.integers(len(wave16k) - length + 1))
    return wave16k[first : first + length]


def _fbank(wave16k: FloatArray) -> Tensor:
    return torch.from_numpy(speaker_fbank(wave16k))


def _goal(statistics: FloatArray, slower: float) -> FloatArray:
    """Statistics of a recording whose time is stretched by `slower`, as the head is to give them."""
    shift = np.array([1, 0, 1, 1, 1], np.float32) * np.float32(np.log(slower))
    return np.asarray((statistics - shift - TYPICAL) / SCALE, np.float32)
