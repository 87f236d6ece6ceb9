"""Merged ids of both model families, prompts and length bounds."""

from __future__ import annotations

import numpy as np
import pytest

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import UtteranceInputs
from cosyvoice_core.lm.prompt import length_bounds, uni_prompt
from cosyvoice_core.lm.vocabulary import SpeechVocabulary


def test_official_cosyvoice2_ids() -> None:
    vocabulary = SpeechVocabulary.cosyvoice2(151936)
    assert (vocabulary.eos, vocabulary.fill, vocabulary.sos, vocabulary.task) == (6561, 6563, 6564, 6565)
    assert (vocabulary.head_rows, vocabulary.text_offset, vocabulary.input_rows) == (6564, 6566, 158502)
    assert (vocabulary.marker_rows, vocabulary.head_bias) == (2, True)
    assert list(vocabulary.stop_ids) == [6561, 6562, 6563]


def test_official_cosyvoice3_ids() -> None:
    vocabulary = SpeechVocabulary.cosyvoice3(151936)
    assert (vocabulary.sos, vocabulary.eos, vocabulary.task, vocabulary.fill) == (6561, 6562, 6563, 6564)
    assert (vocabulary.head_rows, vocabulary.text_offset) == (6761, 6761)
    assert (vocabulary.marker_rows, vocabulary.head_bias) == (0, False)
    assert list(vocabulary.stop_ids) == list(range(6561, 6761))


@pytest.mark.parametrize(
    "changed",
    [
        {"text_rows": 0},
        {"head_rows": 6561},
        {"text_offset": 6563},
        {"eos": 5},
        {"fill": 6564},
        {"sos": 6566},
        {"task": 1},
    ],
)
def test_ids_that_contradict_each_other_are_refused(changed: dict[str, int]) -> None:
    fields = {"speech_tokens": 6561, "text_rows": 10, "sos": 6564, "eos": 6561, "task": 6565, "fill": 6563}
    fields |= {"head_rows": 6564, "text_offset": 6566}
    with pytest.raises(ValueError):
        SpeechVocabulary(**(fields | changed), head_bias=True)


def test_ids_outside_their_range_are_the_users_error() -> None:
    vocabulary = SpeechVocabulary.cosyvoice2(100, speech_tokens=50)
    assert vocabulary.text([0, 99]) == [55, 154]
    assert vocabulary.speech([0, 49]) == [0, 49]
    assert vocabulary.merged([0, 154]) == [0, 154]
    for call, ids in (
        (vocabulary.text, [100]),
        (vocabulary.speech, [50]),
        (vocabulary.merged, [155]),
        (vocabulary.text, [-1]),
    ):
        with pytest.raises(InputError):
            call(ids)


def test_prompt_order() -> None:
    vocabulary = SpeechVocabulary.cosyvoice2(100, speech_tokens=50)
    inputs = UtteranceInputs(
        text_ids=np.array([7, 8], np.int32),
        lm_prompt_text_ids=np.array([3], np.int32),
        lm_prompt_speech=np.array([11, 12], np.int32),
        flow_prompt_tokens=np.zeros(0, np.int32),
        flow_prompt_mel=np.zeros((0, 80), np.float32),
        speaker=np.zeros(192, np.float32),
    )
    assert uni_prompt(vocabulary, inputs) == [vocabulary.sos, 58, 62, 63, vocabulary.task, 11, 12]


def test_length_bounds_round_down() -> None:
    assert length_bounds(7) == (14, 140)
    assert length_bounds(3, min_ratio=0.5, max_ratio=1.5) == (1, 4)
    assert length_bounds(0) == (0, 0)
