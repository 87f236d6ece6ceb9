"""Which tensors each request mode sends where, and what each mode asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import Mode, UtteranceInputs, VoicePrompt, utterance_inputs

TEXT = [10, 11, 12]
VOICE = VoicePrompt(
    speaker=np.ones(192, np.float32),
    speech_tokens=np.arange(5, dtype=np.int32),
    mel=np.ones((10, 80), np.float32),
    transcript="abc",
    transcript_ids=np.array([1, 2], np.int32),
)
BARE = VoicePrompt(np.ones(192, np.float32))
UNTOLD = VoicePrompt(VOICE.speaker, VOICE.speech_tokens, VOICE.mel)


def build(mode: Mode, voice: VoicePrompt = VOICE, **given: Any) -> UtteranceInputs:
    extra: dict[str, Any] = {
        Mode.INSTRUCT2: {"instruction_ids": [7, 8]},
        Mode.CONVERSION: {"text_ids": [], "source_tokens": [3, 4]},
    }.get(mode, {})
    return utterance_inputs(mode, **{"text_ids": TEXT, "voice": voice, **extra, **given})


@pytest.mark.parametrize(
    ("mode", "prompt_text", "lm_speech", "flow_tokens"),
    [
        (Mode.SFT, [], 0, 0),
        (Mode.ZERO_SHOT, [1, 2], 5, 5),
        (Mode.CROSS_LINGUAL, [], 0, 5),
        (Mode.INSTRUCT2, [7, 8], 0, 5),
        (Mode.CONVERSION, [], 0, 5),
    ],
)
def test_table_of_modes(mode: Mode, prompt_text: list[int], lm_speech: int, flow_tokens: int) -> None:
    inputs = build(mode)
    assert inputs.lm_prompt_text_ids.tolist() == prompt_text
    assert len(inputs.lm_prompt_speech) == lm_speech
    assert len(inputs.flow_prompt_tokens) == flow_tokens
    assert inputs.flow_prompt_mel.shape == (2 * flow_tokens, 80)
    assert inputs.text_ids.tolist() == ([] if mode is Mode.CONVERSION else TEXT)
    np.testing.assert_array_equal(inputs.speaker, VOICE.speaker)
    if mode is Mode.CONVERSION:
        assert inputs.source_tokens is not None
        assert inputs.source_tokens.tolist() == [3, 4]
    else:
        assert inputs.source_tokens is None
    ids = (inputs.text_ids, inputs.lm_prompt_text_ids, inputs.lm_prompt_speech, inputs.flow_prompt_tokens)
    assert {array.dtype for array in ids} == {np.dtype(np.int32)}


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.ZERO_SHOT])
def test_a_speaker_vector_alone_serves_every_mode_but_zero_shot(mode: Mode) -> None:
    inputs = build(mode, BARE)
    assert len(inputs.flow_prompt_tokens) == len(inputs.flow_prompt_mel) == len(inputs.lm_prompt_speech) == 0


@pytest.mark.parametrize(
    ("mode", "given", "field", "advice"),
    [
        (Mode.ZERO_SHOT, {"voice": UNTOLD}, "prompt_text", "cross_lingual"),
        (Mode.ZERO_SHOT, {"voice": BARE}, "voice", "sft"),
        (Mode.SFT, {"text_ids": []}, "input", "nothing"),
        (Mode.INSTRUCT2, {"instruction_ids": None}, "instructions", "instruct2"),
        (Mode.INSTRUCT2, {"instruction_ids": []}, "instructions", "instruct2"),
        (Mode.ZERO_SHOT, {"instruction_ids": [1]}, "instructions", "instruct2"),
        (Mode.CONVERSION, {"source_tokens": None}, "source_audio", "recording"),
        (Mode.SFT, {"source_tokens": [1]}, "source_audio", "vc"),
    ],
)
def test_what_a_mode_lacks_or_cannot_use_is_named(mode: Mode, given: Any, field: str, advice: str) -> None:
    with pytest.raises(InputError, match=advice) as caught:
        build(mode, **given)
    assert caught.value.field == field
