"""Sampling settings of a request: over the checkpoint's own, within limits that are named."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.errors import InputError
from deployments.ingress.body import SpeechBody
from deployments.ingress.errors import answer_for
from deployments.ingress.options import SamplingBody
from deployments.mailbox import OverloadedError
from deployments.sampling import SamplingSettings

OWN = SamplingConfig(top_p=0.7, top_k=20, window=8, tau=0.2)


def test_what_is_not_given_is_the_checkpoints_own() -> None:
    assert SamplingSettings().over(OWN) == OWN
    assert SamplingSettings(top_p=0.9, temperature=0.8).over(OWN) == SamplingConfig(0.9, 20, 8, 0.2, 0.8)
    assert SamplingSettings(ras=False, window=9).over(OWN) == SamplingConfig(0.7, 20, 0, 0.2)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("top_p", (0.0, -1.0, 1.01, float("nan"), "x", True)),
        ("top_k", (0, 6562, 2.5, True)),
        ("window", (-1, 65, 0.5)),
        ("tau", (-0.1, 1.1, float("inf"))),
        ("temperature", (0.0, 0.04, 5.1, float("nan"))),
    ],
)
def test_limits_are_kept_and_named_by_every_door(field: str, values: tuple[object, ...]) -> None:
    for value in values:
        with pytest.raises(InputError, match=rf"sampling\.{field}: .*allowed: \d.* to \d"):
            SamplingSettings(**{field: value})
        if value is not True:
            with pytest.raises(ValidationError) as caught:
                SpeechBody.model_validate({"input": "Hello", "sampling": {field: value}})
            assert caught.value.errors()[0]["loc"] == ("sampling", field)


def test_bounds_themselves_are_allowed() -> None:
    least = SamplingBody(top_p=0.001, top_k=1, window=0, tau=0.0, temperature=0.05).settings()
    most = SamplingBody(top_p=1.0, top_k=6561, window=64, tau=1.0, temperature=5.0).settings()
    for settings in (least, most):
        assert settings.over(OWN).top_p == settings.top_p


def test_a_speech_body_carries_them() -> None:
    body = SpeechBody.model_validate({"input": "Hello", "greedy": True, "sampling": {"ras": False, "top_k": 5}})
    call = body.call()
    assert call.greedy
    assert call.sampling == SamplingSettings(ras=False, top_k=5)
    with pytest.raises(ValidationError):
        SpeechBody.model_validate({"input": "Hello", "sampling": {"repetition_penalty": 2}})


def test_the_answer_names_the_field_and_its_limit() -> None:
    with pytest.raises(ValidationError) as caught:
        SpeechBody.model_validate({"input": "Hello", "sampling": {"top_p": 1.5}})
    answer = answer_for(caught.value)
    assert (answer.status, answer.param) == (400, "sampling.top_p")
    assert "less than or equal to 1" in answer.message
    with pytest.raises(InputError) as refused:
        SamplingSettings(top_k=0)
    assert answer_for(refused.value).param == "sampling.top_k"


def test_too_many_growing_texts_are_an_overload_not_a_mistake() -> None:
    answer = answer_for(OverloadedError("32 texts are being written on this replica already"))
    assert (answer.status, answer.code) == (429, "overloaded")
