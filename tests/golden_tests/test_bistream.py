"""Speech while the text arrives: the original's traces, and the corrected procedure that the product follows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch

from cosyvoice_core.lm import Interleave, StreamRequest, TorchEngine
from cosyvoice_core.lm.plan import Done, Predict
from tests.golden_tests.lm_models import Decoding, GoldenLM, cosyvoice2
from tests.golden_tests.reference_interleave import ReferenceInterleave, SampledStopError

pytestmark = pytest.mark.golden

Case = tuple[str, dict[str, Any]]


class EnoughStepsError(Exception):
    """The stored trace has no more steps."""


@pytest.fixture(scope="module")
def lm(golden_lm: Path) -> GoldenLM:
    return cosyvoice2(golden_lm)


@pytest.fixture(scope="module")
def cases(golden_lm: Path) -> list[Case]:
    found = list(json.loads((golden_lm / "lm_bistream.json").read_text()).items())
    assert found
    return found


def plan_of(case: dict[str, Any], lm: GoldenLM) -> Interleave:
    return Interleave(
        lm.vocabulary,
        case["prompt_text"],
        case["prompt_speech"],
        text_block=lm.config.text_block,
        speech_block=lm.config.speech_block,
    )


def reference_run(case: dict[str, Any], lm: GoldenLM, most_steps: int) -> tuple[ReferenceInterleave, bool]:
    """The original's procedure, cut after `most_steps` forwards; and whether it had come to an end by then."""
    decoding = Decoding(lm)
    forwards = 0

    def best(ids: Sequence[int], masked: Sequence[int]) -> int:
        nonlocal forwards
        forwards += 1
        if forwards > most_steps:
            raise EnoughStepsError
        scores = decoding.feed(ids)[-1].clone()
        scores[list(masked)] = -torch.inf
        return int(scores.argmax())

    run = ReferenceInterleave(lm.vocabulary, best, lm.config.text_block, lm.config.speech_block)
    try:
        run.run(case["text"], case["prompt_text"], case["prompt_speech"])
    except (SampledStopError, EnoughStepsError):
        return run, False
    return run, True


def test_traces_of_the_original(cases: list[Case], lm: GoldenLM) -> None:
    """The original knows no bound on length: a trace may end with an error, which the set then tells."""
    for name, case in cases:
        stored = case["reference"]
        run, ended = reference_run(case, lm, len(stored["steps"]))
        assert [asdict(step) for step in run.steps] == stored["steps"], name
        assert run.emitted == stored["yielded"], name
        assert ended == (stored["error"] is None), name


class PlanRun:
    """Drives the bare plan as the simplest engine would, and notes what happens."""

    def __init__(self, case: dict[str, Any], lm: GoldenLM) -> None:
        self.events: list[dict[str, Any]] = []
        self.emitted: list[int] = []
        self.reason: str | None = None
        self.plan = plan_of(case, lm)
        self._lm = lm
        self._decoding = Decoding(lm)
        self._fed = 0
        for consumed, id_ in enumerate(case["text"], start=1):
            self.plan.feed_text([id_])
            self._drive(consumed)
        self.plan.end_text()
        self._drive(len(case["text"]))

    def _drive(self, consumed: int) -> None:
        vocabulary = self._lm.vocabulary
        while isinstance(action := self.plan.next(), Predict):
            final = action.closing == vocabulary.eos
            scores = self._decoding.feed(self.plan.context[self._fed :])[-1].clone()
            self._fed = len(self.plan.context)
            scores[[id_ for id_ in vocabulary.stop_ids if id_ != action.closing]] = -torch.inf
            id_ = int(scores.argmax())
            self._note(id_, False, consumed, final)
            if self.plan.produced(id_):
                self.emitted.append(id_)
            if not final and id_ != vocabulary.fill and self._speech_since_text() == self._lm.config.speech_block:
                self._note(vocabulary.fill, True, consumed, False)
        if isinstance(action, Done):
            self.reason = action.reason

    def _speech_since_text(self) -> int:
        speech_tokens = self._lm.vocabulary.speech_tokens
        return sum(1 for _ in takewhile(lambda id_: id_ < speech_tokens, reversed(self.plan.context)))

    def _note(self, id_: int, forced: bool, consumed: int, final: bool) -> None:
        event = {"pos": len(self.plan.context), "token": id_, "forced": forced, "text_consumed": consumed}
        self.events.append(event | ({"final": True} if final else {}))


def test_corrected_plan(cases: list[Case], lm: GoldenLM) -> None:
    for name, case in cases:
        stored = case["corrected"]
        run = PlanRun(case, lm)
        assert run.events == stored["events"], name
        assert run.plan.context == stored["context_merged_ids"], name
        assert run.emitted == stored["yielded"], name
        assert run.reason == ("stop" if stored["ended_by"] == "eos" else "length"), name


@pytest.mark.parametrize("portion", [1, 3, 5, 100])
def test_engine_with_all_cases_at_once(cases: list[Case], lm: GoldenLM, portion: int) -> None:
    """Text in any portions, all streams in one batch."""
    engine = TorchEngine(lm.body, lm.vocabulary, lm.config)
    waiting = {}
    for name, case in cases:
        request = StreamRequest(tuple(case["prompt_text"]), tuple(case["prompt_speech"]), greedy=True)
        waiting[engine.add(request)] = (name, list(case["text"]))
    names = {number: name for number, (name, _) in waiting.items()}
    emitted: dict[str, list[int]] = {name: [] for name, _ in cases}
    reasons = {}
    while engine.pending:
        for number, (_, text) in list(waiting.items()):
            engine.extend(number, text[:portion], end=len(text) <= portion)
            del text[:portion]
            if not text:
                del waiting[number]
        while engine.ready:
            for event in engine.step():
                emitted[names[event.sequence]] += event.tokens
                if event.finished:
                    reasons[names[event.sequence]] = event.reason
    for name, case in cases:
        assert emitted[name] == case["corrected"]["yielded"], name
        assert reasons[name] == ("stop" if case["corrected"]["ended_by"] == "eos" else "length"), name
