"""Whole token-to-wave sessions of the original, reproduced by the reference mode call by call."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.flow import FlowModel
from cosyvoice_core.reference import NoiseOfCall, ReferenceTokenToWave, VocoderCall
from cosyvoice_core.vocoder import Vocoder
from tests.golden_tests.arrays import Arrays, largest_gap, unknown
from tests.golden_tests.arrays import sessions as stored_sessions
from tests.golden_tests.configs import flow_config, session_settings, vocoder_config

pytestmark = pytest.mark.golden

MEL = 5e-5
PARTS = ("token", "prompt_token", "prompt_feat", "embedding")
KNOWN = [
    *(*PARTS, "calls", "n_chunks", "token_hop_after", r"stream_(chunk|hift_mel|hift_source)\d+"),
    *("speech_oneshot", "oneshot_hift_(mel|source)", r"speech_speed\d+", r"speed\d+_hift_mel"),
    "mel_streaming_true_final",
]
"""What the arrays of a session may be called; the last is compared with the incremental flow in `test_flow.py`."""
SPEED = re.compile(r"speech_speed(\d+)")
"""Speech of a whole session at a speed given in per cent."""


@pytest.fixture(scope="module")
def sessions(golden_acoustic: Path) -> dict[str, Arrays]:
    return stored_sessions(golden_acoustic)


@pytest.fixture(scope="module")
def seeds(golden_acoustic: Path) -> dict[str, int]:
    seeds: dict[str, int] = json.loads((golden_acoustic / "manifest.json").read_text())["_noise_seeds"]["sessions"]
    return seeds


@pytest.fixture(scope="module")
def reference(golden_acoustic: Path) -> ReferenceTokenToWave:
    config = golden_acoustic / "config.json"
    flow = FlowModel.from_state(read_state(golden_acoustic / "flow.pt"), flow_config(config))
    vocoder = Vocoder.from_state(read_state(golden_acoustic / "hift.pt"), vocoder_config(config), "hift.pt")
    return ReferenceTokenToWave(flow, vocoder, session_settings(config))


def injected(seed: int, partials: int) -> NoiseOfCall:
    """The noise the fixtures were made with: one generator per vocoder call."""

    def noise(call: int, samples: int) -> Tensor:
        drawn = np.random.RandomState(seed * 1000 + call).standard_normal((1, samples, partials))
        return torch.from_numpy(drawn.astype(np.float32))

    return noise


def inputs(session: Arrays) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(session[name])[0] for name in PARTS)


def partials(golden_acoustic: Path) -> int:
    return vocoder_config(golden_acoustic / "config.json").partials


def assert_same_sound(actual: Tensor, expected: npt.NDArray[np.generic]) -> None:
    """From tokens, float32 phase limits agreement: rms within 1 % of the signal's, no sample off by 0.05.

    That is the bound on sound that is made from tokens. A source is held to the same: it is where the phase comes in,
    so the error of the sound is that of its source, shaped by the generator, and a looser bound would prove nothing.
    """
    assert tuple(actual.shape) == expected.shape
    difference = (actual - torch.from_numpy(expected)).double()
    rms = torch.from_numpy(expected).double().square().mean().sqrt()
    assert difference.square().mean().sqrt() < 0.01 * rms
    assert difference.abs().max() < 0.05


def assert_mel(actual: Tensor, expected: npt.NDArray[np.generic]) -> None:
    assert largest_gap(actual, expected) <= MEL


def test_every_array_is_compared(sessions: dict[str, Arrays]) -> None:
    for name, session in sessions.items():
        assert unknown(session, KNOWN) == [], name
        streamed = [key for key in session if key.startswith("stream_")]
        assert len(streamed) == 3 * int(session["n_chunks"]), name
        for key in session:
            if key.startswith("speed") and key.endswith("_hift_mel"):
                assert f"speech_{key.removesuffix('_hift_mel')}" in session, (name, key)


def test_streams(
    reference: ReferenceTokenToWave,
    sessions: dict[str, Arrays],
    seeds: dict[str, int],
    golden_acoustic: Path,
) -> None:
    for name, session in sessions.items():
        noise = injected(seeds[name], partials(golden_acoustic))
        calls = list(reference.stream(*inputs(session), noise))
        rows = [[call.prefix, int(call.streaming), int(call.finalize), call.frames] for call in calls]
        assert rows == session["calls"].tolist()
        assert len(calls) == int(session["n_chunks"])
        assert calls[-1].hop_after == int(session["token_hop_after"])
        for number, call in enumerate(calls):
            check_call(call, session, number)


def check_call(call: VocoderCall, session: Arrays, number: int) -> None:
    assert_mel(call.mel, session[f"stream_hift_mel{number}"])
    assert_same_sound(call.source, session[f"stream_hift_source{number}"])
    assert_same_sound(call.emitted, session[f"stream_chunk{number}"])


def test_one_shots(
    reference: ReferenceTokenToWave,
    sessions: dict[str, Arrays],
    seeds: dict[str, int],
    golden_acoustic: Path,
) -> None:
    for name, session in sessions.items():
        call = reference.one_shot(*inputs(session), injected(seeds[name], partials(golden_acoustic)))
        assert_mel(call.mel, session["oneshot_hift_mel"])
        assert_same_sound(call.source, session["oneshot_hift_source"])
        assert_same_sound(call.emitted, session["speech_oneshot"])


def test_speeds(
    reference: ReferenceTokenToWave,
    sessions: dict[str, Arrays],
    seeds: dict[str, int],
    golden_acoustic: Path,
) -> None:
    stored = [(name, found[1]) for name, session in sessions.items() for key in session if (found := SPEED.match(key))]
    assert stored
    for name, percent in stored:
        session = sessions[name]
        noise = injected(seeds[name], partials(golden_acoustic))
        call = reference.one_shot(*inputs(session), noise, speed=int(percent) / 100)
        if f"speed{percent}_hift_mel" in session:
            assert_mel(call.mel, session[f"speed{percent}_hift_mel"])
        assert_same_sound(call.emitted, session[f"speech_speed{percent}"])
