"""Stage `flow`: speech tokens and a prompt to mel, with the modules that serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.flow.model import FlowModel, FlowNetwork
from tools.demo_voice.codec.train import ALIGNED, HEARD
from tools.demo_voice.data.corpus import Corpus, FloatArray
from tools.demo_voice.flow.loss import FlowLoss, flow_losses
from tools.demo_voice.flow.start import start_straight
from tools.demo_voice.flow.windows import WindowPlan, Windows
from tools.demo_voice.speaker.train import SPEAKER
from tools.demo_voice.trainer import Machine, Part, Plan, Step, Trainer, save_atomically

STATE = "flow.pt"
_STREAMED = 0.5
_FITTED_ROWS = 8
_MOST_JUDGED = 12


def train_flow(
    folder: Path,
    corpus: Corpus,
    config: FlowConfig,
    plan: Plan,
    seed: int,
    windows: WindowPlan | None = None,
    loss: FlowLoss | None = None,
) -> dict[str, float]:
    """Run the stage and write its tensors; returns figures measured on held-out sentences."""
    machine, loss = Machine.here(), loss or FlowLoss()
    torch.manual_seed(seed)
    network = FlowNetwork(config).to(machine.device)
    drawn = Windows(corpus, windows or WindowPlan(), config.lookahead_tokens)
    start_straight(network, drawn.draw(_FITTED_ROWS, np.random.default_rng([seed, 2])).to(machine.device))
    part = Part.adamw(network, plan.learning_rate)

    def step(now: Step) -> dict[str, Tensor]:
        batch = drawn.draw(plan.batch, now.random).to(machine.device)
        streaming = bool(now.random.random() < _STREAMED)
        with machine.autocast():
            losses = flow_losses(network, batch, loss, streaming=streaming)
        part.descend(losses["flow"] + loss.mean_weight * losses["mean"], plan.clip)
        return losses

    Trainer(folder, {"network": part}, plan, seed, "flow").run(step)
    save_atomically({key: value.cpu() for key, value in network.state_dict().items()}, folder / STATE)
    judged = (corpus.numbers(held_out=True) or corpus.numbers(held_out=False))[:_MOST_JUDGED]
    model = load_flow(folder, config)
    voices, random = corpus.by_voice(), np.random.default_rng([seed, 3])
    distances = [
        np.abs(
            spoken_mel(model, corpus, number, prompt_for(corpus, voices, number, random)) - corpus.mel(number)
        ).mean()
        for number in judged
    ]
    return {"held-out distance of log mel": float(np.mean(distances))}


def load_flow(folder: Path, config: FlowConfig, device: torch.device | None = None) -> FlowModel:
    """The flow of the stage, as it serves."""
    state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return FlowModel.from_state(state, config, source=str(folder / STATE), device=device or torch.device("cpu"))


def spoken_mel(model: FlowModel, corpus: Corpus, number: int, prompt: int, *, streaming: bool = False) -> FloatArray:
    """(2 n, 80): an utterance's aligned tokens spoken behind the utterance `prompt`."""
    mel = model.mel(
        torch.from_numpy(corpus.derived(ALIGNED, number)),
        torch.from_numpy(corpus.derived(HEARD, prompt)),
        torch.from_numpy(corpus.mel(prompt)),
        torch.from_numpy(corpus.derived(SPEAKER, prompt)),
        streaming=streaming,
        finalize=True,
    )
    return np.asarray(mel.T.cpu().numpy(), np.float32)


def prompt_for(corpus: Corpus, voices: Mapping[str, Sequence[int]], number: int, random: np.random.Generator) -> int:
    """Another utterance of the same voice, or the utterance itself where its voice has no other."""
    others = [other for other in voices.get(corpus.utterances[number].voice, ()) if other != number]
    return int(random.choice(others)) if others else number
