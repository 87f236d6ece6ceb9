"""The incremental flow equals the recomputing one, however tokens arrive."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosyvoice_core.checkpoint.tensors import load_strict
from cosyvoice_core.config import FlowConfig
from cosyvoice_core.errors import CheckpointError, EngineError, InputError
from cosyvoice_core.flow import FlowModel, FlowSession
from cosyvoice_core.flow.masks import chunk_mask
from cosyvoice_core.flow.model import FlowNetwork

SMALL = FlowConfig(
    encoder_dim=32,
    encoder_heads=2,
    encoder_ffn=64,
    encoder_blocks=2,
    upsampled_blocks=1,
    channels=16,
    estimator_heads=2,
    estimator_head_dim=8,
    blocks_per_stage=1,
    mid_stages=1,
)


def random_model(seed: int = 0) -> FlowModel:
    torch.manual_seed(seed)
    network = FlowNetwork(SMALL)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return FlowModel(network, SMALL)


MODEL = random_model()


def prompt(length: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    return (
        torch.randint(0, SMALL.vocab_size, (length,), generator=generator),
        torch.randn((2 * length, SMALL.mel_bins), generator=generator),
        torch.randn((SMALL.speaker_dim,), generator=generator),
    )


def random_tokens(count: int) -> Tensor:
    return torch.randint(0, SMALL.vocab_size, (count,), generator=torch.Generator().manual_seed(count))


@settings(max_examples=25)
@given(
    prompt_length=st.sampled_from([0, 1, 3, 20, 24, 25, 27, 28, 50, 61]),
    pieces=st.lists(st.integers(0, 60), min_size=1, max_size=6),
    prefill=st.booleans(),
)
def test_any_pieces_equal_one_shot(prompt_length: int, pieces: list[int], prefill: bool) -> None:
    tokens = random_tokens(sum(pieces) + 1)
    expected = MODEL.mel(tokens, *prompt(prompt_length), streaming=True, finalize=True)
    session = FlowSession(MODEL, *prompt(prompt_length))
    if prefill:
        assert session.push([], last=False).shape == (SMALL.mel_bins, 0)
    got, start = [], 0
    for size in pieces:
        got.append(session.push(tokens[start : start + size], last=False))
        start += size
    got.append(session.push(tokens[start:], last=True))
    actual = torch.cat(got, dim=1)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 5e-5


def test_frames_leave_as_soon_as_a_chunk_is_complete() -> None:
    session = FlowSession(MODEL, *prompt(20))
    assert session.tokens_needed == 8
    assert session.push(random_tokens(7), last=False).shape[1] == 0
    assert session.tokens_needed == 1
    assert session.push(random_tokens(1), last=False).shape[1] == 10
    assert session.tokens_needed == 25
    assert session.push(random_tokens(25), last=False).shape[1] == 50


def test_prompt_that_ends_on_a_chunk_needs_one_whole_chunk() -> None:
    session = FlowSession(MODEL, *prompt(50))
    assert session.tokens_needed == 28
    session.push([], last=False)
    assert session.tokens_needed == 28


def test_work_per_chunk_does_not_grow_with_tokens_already_done() -> None:
    """Only new frames enter the layers: the frames that each push sends through the estimator are counted."""
    seen: list[int] = []
    estimator = MODEL.network.decoder.estimator
    handle = estimator.final_block.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[0] * out.shape[1]))
    session = FlowSession(MODEL, *prompt(20))
    for _ in range(4):
        session.push(random_tokens(session.tokens_needed), last=False)
    handle.remove()
    # In the first step the unconditional row is computed apart, the first time any stream gets there.
    per_chunk = [50, 50] + [100] * (SMALL.ode_steps - 1)
    assert seen == 4 * per_chunk


def test_no_speech_tokens_give_no_frames() -> None:
    assert FlowSession(MODEL, *prompt(0)).push([], last=True).shape[1] == 0


def test_sessions_do_not_touch_each_other() -> None:
    alone = FlowSession(MODEL, *prompt(25)).push(random_tokens(60), last=True)
    first, second = FlowSession(MODEL, *prompt(25)), FlowSession(MODEL, *prompt(50))
    parts = [first.push(random_tokens(60)[:30], last=False)]
    second.push(random_tokens(44), last=False)
    parts.append(first.push(random_tokens(60)[30:], last=True))
    assert (torch.cat(parts, dim=1) - alone).abs().max() <= 5e-5


def test_push_after_the_end_is_refused() -> None:
    session = FlowSession(MODEL, *prompt(0))
    session.push(random_tokens(4), last=True)
    with pytest.raises(ValueError, match="after the last"):
        session.push([1], last=True)


def test_more_than_300_s_is_refused_with_the_limit() -> None:
    session = FlowSession(MODEL, *prompt(0))
    with pytest.raises(InputError, match="15000"):
        session.push(torch.zeros(7501, dtype=torch.long), last=True)


def test_not_a_number_fails_the_utterance() -> None:
    tokens, mel, speaker = prompt(25)
    mel[3, 3] = torch.nan
    with pytest.raises(EngineError, match="not finite"):
        FlowSession(MODEL, tokens, mel, speaker).push(random_tokens(10), last=True)


def test_mask_shows_whole_chunks_and_vanishes_for_one() -> None:
    device = torch.device("cpu")
    assert chunk_mask(50, 50, 100, 50, device) is None
    mask = chunk_mask(0, 7, 7, 3, device)
    assert mask is not None
    assert mask.sum(dim=1).tolist() == [3, 3, 3, 6, 6, 6, 7]


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = dict(MODEL.network.state_dict())
    state["surplus.weight"] = torch.zeros(2)
    state["encoder_proj.bias"] = torch.zeros(3)
    del state["input_embedding.weight"]
    with pytest.raises(CheckpointError) as failure:
        load_strict(FlowNetwork(SMALL), state, "flow.pt")
    message = str(failure.value)
    for part in (
        "flow.pt",
        "surplus.weight [2]",
        "encoder_proj.bias is [3], expected [80]",
        "input_embedding.weight",
    ):
        assert part in message
