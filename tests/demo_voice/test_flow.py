"""The flow's training: windows, the straight start, and that the loss is that of the modules that serve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cosyvoice_core.flow.model import FlowModel, FlowNetwork
from tools.demo_voice.codec.train import HEARD
from tools.demo_voice.flow.loss import FlowLoss, flow_losses, given
from tools.demo_voice.flow.loss import Path as NoisePath
from tools.demo_voice.flow.start import start_straight
from tools.demo_voice.flow.train import prompt_for
from tools.demo_voice.flow.windows import FlowBatch, WindowPlan, Windows
from tools.demo_voice.run import Run
from tools.demo_voice.trainer import Part


@pytest.fixture(scope="module")
def windows(coded: Run) -> Windows:
    return Windows(coded.corpus, WindowPlan(40, 60), lookahead=3)


def _network(coded: Run, seed: int = 0) -> FlowNetwork:
    torch.manual_seed(seed)
    return FlowNetwork(coded.model().flow)


def test_windows_hold_tokens_and_the_mel_that_belongs_to_them(coded: Run, windows: Windows) -> None:
    corpus = coded.corpus
    kinds = set()
    for seed in range(12):
        batch = windows.draw(2, np.random.default_rng(seed))
        length = batch.tokens.shape[1]
        assert 40 <= length <= 60
        assert batch.mel.shape == (2, 2 * length, 80)
        assert batch.speaker.shape == (2, 192)
        assert (batch.prompt < 2 * length).all()
        assert batch.ahead is None or batch.ahead.shape == (2, 3)
        kinds.add(batch.ahead is None)
        if batch.ahead is not None:
            # It begins with an utterance of the corpus: find it by its mel, and compare what is heard of it.
            first = next(
                number
                for number in corpus.numbers(held_out=False)
                if np.array_equal(corpus.mel(number)[:10], batch.mel[0, :10].numpy())
            )
            known = min(length, corpus.utterances[first].tokens)
            assert np.array_equal(corpus.derived(HEARD, first)[:known], batch.tokens[0, :known].numpy())
    assert kinds == {True, False}


def test_a_path_leads_from_noise_to_mel() -> None:
    torch.manual_seed(0)
    mel = torch.randn(64, 5, 80)
    path = NoisePath.drawn(mel, sigma=0.0)
    assert torch.allclose(path.point + (1 - path.time)[:, None, None] * path.velocity, mel, atol=1e-5)
    assert path.time.min() >= 0
    assert path.time.max() < 1
    assert path.time.median() < 0.5


def test_the_straight_start_is_far_better_than_an_ordinary_one(coded: Run, windows: Windows) -> None:
    network = _network(coded)
    judged = windows.draw(8, np.random.default_rng(100))
    with torch.no_grad():
        torch.manual_seed(1)
        before = flow_losses(network, judged, FlowLoss(), streaming=False)
        start_straight(network, windows.draw(8, np.random.default_rng(101)))
        torch.manual_seed(1)
        after = flow_losses(network, judged, FlowLoss(), streaming=False)
    assert after["flow"] < 0.5 * before["flow"]
    assert after["mean"] < before["mean"]


def test_a_narrow_estimator_has_no_straight_start(coded: Run, windows: Windows) -> None:
    from dataclasses import replace

    narrow = FlowNetwork(replace(coded.model().flow, channels=96))
    with pytest.raises(ValueError, match="needs 160 channels"):
        start_straight(narrow, windows.draw(2, np.random.default_rng(0)))


def test_conditions_are_those_of_the_flow_that_serves(coded: Run, windows: Windows) -> None:
    network = _network(coded)
    batch = windows.draw(1, np.random.default_rng(3))
    batch = FlowBatch(batch.tokens, None, batch.mel, batch.speaker, torch.tensor([30]))
    with torch.no_grad():
        told = given(network, batch, streaming=True)
    model = FlowModel(network, coded.model().flow)
    frames = batch.mel.shape[1]
    assert torch.allclose(told.speaker, model.speaker(batch.speaker[0]), atol=1e-6)
    assert torch.equal(told.condition, model.condition(batch.mel[0, :30], 0, frames))


def test_the_loss_falls_and_reaches_every_tensor(coded: Run, windows: Windows) -> None:
    network = _network(coded)
    batch = windows.draw(3, np.random.default_rng(5))
    start_straight(network, batch)
    part = Part.adamw(network, 2e-3)
    losses = []
    for step in range(10):
        torch.manual_seed(step % 2)
        found = flow_losses(network, batch, FlowLoss(dropout=0.0), streaming=bool(step % 2))
        losses.append(float(found["flow"].detach()))
        part.descend(found["flow"] + found["mean"], 3.0)
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2])
    silent = [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]
    assert silent == []


def test_a_prompt_is_another_utterance_of_the_voice(coded: Run) -> None:
    corpus, random = coded.corpus, np.random.default_rng(0)
    voices = corpus.by_voice()
    for number in (15, 30, 45):
        prompt = prompt_for(corpus, voices, number, random)
        assert prompt != number
        assert corpus.utterances[prompt].voice == corpus.utterances[number].voice
    assert prompt_for(corpus, {}, 15, random) == 15
