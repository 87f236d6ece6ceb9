"""What a request may tell the logits processor, and which sampling options it must not carry along."""

from __future__ import annotations

from typing import Any

import pytest
from vllm import SamplingParams

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.errors import InputError
from deployments.speech_lm.ras_params import RasParams
from deployments.speech_lm.ras_processor import RasProcessor

pytestmark = pytest.mark.vllm

CONFIG = SamplingConfig()
GOOD = RasParams(CONFIG, 4, seed=2, position=1).extra_args()["ras"]


def test_extra_args_travel_there_and_back() -> None:
    for params in (RasParams(CONFIG, 0), RasParams(SamplingConfig(0.5, 3, 7, 0.3, 0.9), 12, seed=2**63, position=5)):
        again = RasParams.of(params.extra_args())
        assert again is not None
        assert again.extra_args() == params.extra_args()
        assert (again.sampling, again.start, again.position) == (params.sampling, params.start, params.position)
    assert RasParams.of(None) is None
    assert RasParams.of({"other": 1}) is None
    assert -(2**63) <= RasParams(CONFIG, 0, seed=2**64 - 1).extra_args()["ras"]["seed"] < 2**63


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"top_p": "0.8"}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 2.5}, "top_k"),
        ({"window": -1}, "window"),
        ({"window": 65}, "window"),
        ({"tau": -0.1}, "tau"),
        ({"tau": True}, "tau"),
        ({"temperature": 0.0}, "temperature"),
        ({"start": -1}, "start"),
        ({"start": None}, "start"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"position": -1}, "position"),
        ({"topp": 0.8}, "topp"),
    ],
)
def test_bad_extra_args_are_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        RasParams.of({"ras": {**GOOD, **changes}})


@pytest.mark.parametrize("lacking", ["top_p", "top_k", "window", "tau", "start"])
def test_missing_extra_args_are_refused(lacking: str) -> None:
    args = {name: value for name, value in GOOD.items() if name != lacking}
    with pytest.raises(InputError, match=lacking):
        RasProcessor.validate_params(SamplingParams(extra_args={"ras": args}))
    with pytest.raises(InputError, match="mapping"):
        RasProcessor.validate_params(SamplingParams(extra_args={"ras": 1}))


@pytest.mark.parametrize(
    "option",
    [
        {"repetition_penalty": 1.2},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5},
        {"prompt_logprobs": 1},
        {"logprob_token_ids": [5]},
        {"bad_words": ["x"]},
    ],
)
def test_options_that_would_end_the_engine_are_refused(option: dict[str, Any]) -> None:
    for extra in (None, {"ras": GOOD}):
        with pytest.raises(InputError, match=next(iter(option))):
            RasProcessor.validate_params(SamplingParams(extra_args=extra, **option))


@pytest.mark.parametrize(
    "option", [{"temperature": 0.0}, {"temperature": 0.7}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"seed": 4}]
)
def test_other_sampling_beside_ras_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(option))):
        RasProcessor.validate_params(SamplingParams(extra_args={"ras": GOOD}, **option))
    RasProcessor.validate_params(SamplingParams(**option))


def test_several_answers_would_all_be_the_same() -> None:
    with pytest.raises(InputError, match="n: "):
        RasProcessor.validate_params(SamplingParams(n=2, extra_args={"ras": GOOD}))


def test_good_requests_pass() -> None:
    RasProcessor.validate_params(SamplingParams(extra_args={"ras": GOOD}, min_tokens=3, logit_bias={5: -100.0}))
    five = {name: GOOD[name] for name in ("top_p", "top_k", "window", "tau", "start")}
    assert RasParams.of({"ras": five}) == RasParams(CONFIG, 4)
    RasProcessor.validate_params(SamplingParams(seed=3, extra_args=RasParams(CONFIG, 4).extra_args()))
    RasProcessor.validate_params(SamplingParams(temperature=0.0))
