"""What each request mode sends into the model, from the same files and strings as the original's front end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.features import prompt_mel
from cosyvoice_core.audio.resample import resample
from cosyvoice_core.config import FlowConfig
from cosyvoice_core.inputs import Mode, UtteranceInputs, VoicePrompt, utterance_inputs
from cosyvoice_core.lm.prompt import uni_prompt
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from cosyvoice_core.text.frontend import Profile, TextFrontEnd
from cosyvoice_core.text.script import Language, reference_branch
from cosyvoice_core.text.tags import END_OF_PROMPT
from cosyvoice_core.text.tokenizer import Tokenizer
from cosyvoice_core.voice.encoder import VoiceEncoder
from cosyvoice_core.voice.saved import load_saved_voices
from cosyvoice_core.voice.speech_tokenizer import SpeechTokenizer
from tests.golden_tests.arrays import read_arrays
from tests.golden_tests.lm_models import read_config, vocabulary_of

pytestmark = pytest.mark.golden

BUG = "instruct2_saved_spk_REFERENCE_BUG"
MODES = {
    "sft": Mode.SFT,
    "zero_shot": Mode.ZERO_SHOT,
    "cross_lingual": Mode.CROSS_LINGUAL,
    "instruct2": Mode.INSTRUCT2,
    "vc": Mode.CONVERSION,
    "zero_shot_saved_spk": Mode.ZERO_SHOT,
    "cross_lingual_saved_spk": Mode.CROSS_LINGUAL,
    BUG: Mode.INSTRUCT2,
}
FIELDS = {
    "text": "text_ids",
    "prompt_text": "lm_prompt_text_ids",
    "llm_prompt_speech_token": "lm_prompt_speech",
    "flow_prompt_speech_token": "flow_prompt_tokens",
    "prompt_speech_feat": "flow_prompt_mel",
    "llm_embedding": "speaker",
    "flow_embedding": "speaker",
    "source_speech_token": "source_tokens",
}


@dataclass(frozen=True, slots=True)
class Golden:
    """The stored request, the original's tensors for it, and our inputs for each mode."""

    request: dict[str, Any]
    tensors: dict[str, npt.NDArray[Any]]
    inputs: dict[str, UtteranceInputs]
    instruction_ids: list[int]
    end_of_prompt: int
    vocabulary: SpeechVocabulary
    directory: Path

    def stored(self, mode: str, field: str) -> npt.NDArray[Any]:
        """The original's tensor (1, ...); an instruction with the end that ours always has."""
        tensor = self.tensors[f"{mode}.{field}"]
        if (mode, field) == ("instruct2", "prompt_text") and self._lacks_end:
            return np.append(tensor, [[self.end_of_prompt]], axis=1).astype(tensor.dtype)
        return tensor

    def stored_length(self, mode: str, field: str) -> list[int]:
        lacking = (mode, field) == ("instruct2", "prompt_text") and self._lacks_end
        return [int(self.tensors[f"{mode}.{field}_len"][0]) + lacking]

    def stored_prompt(self, mode: str) -> list[int]:
        """Merged ids that the original's language model was given."""
        merged: list[int] = self.request["modes"][mode]["__lm_merged_ids"]
        if mode == "instruct2" and self._lacks_end:
            place = 1 + self.tensors[f"{mode}.prompt_text"].shape[1]
            return [*merged[:place], *self.vocabulary.text([self.end_of_prompt]), *merged[place:]]
        return merged

    @property
    def _lacks_end(self) -> bool:
        """The original takes an instruction as it is given."""
        return END_OF_PROMPT not in self.request["instruct_text"]

    def assert_same(self, actual: npt.NDArray[Any], expected: npt.NDArray[Any], field: str) -> None:
        """Ids exactly, speaker vectors to 1e-4, mels to 1e-3 (2e-2 in the nearly empty bins of synthetic sounds)."""
        assert actual.shape == expected.shape[1:], field
        if field.endswith("embedding"):
            np.testing.assert_allclose(actual, expected[0], rtol=0, atol=1e-4)
        elif field.endswith("feat"):
            of_speech = Path(self.request["prompt_wav"]).stem.startswith("speech")
            np.testing.assert_allclose(actual, expected[0], rtol=0, atol=1e-3 if of_speech else 2e-2)
        else:
            assert actual.dtype == expected.dtype == np.int32
            np.testing.assert_array_equal(actual, expected[0])


def with_prompt(voices: dict[str, VoicePrompt]) -> list[VoicePrompt]:
    return [voice for voice in voices.values() if len(voice.speech_tokens)]


def voice_of(speaker: npt.NDArray[Any], voices: Iterable[VoicePrompt]) -> VoicePrompt:
    """The voice a mode was asked with, by its stored vector (1, n): a file may hold others, and names are not told."""
    return min(voices, key=lambda voice: float(np.abs(voice.speaker - speaker[0]).max()))


def assert_same_text(ours: str, stored: str, source: str) -> None:
    """Equal, but for blanks that the grammars of the original leave behind an English text with digits."""
    if reference_branch(source) is Language.ENGLISH and re.search(r"\d", source):
        ours, stored = (re.sub(r" +(?=\W*$)", "", text) for text in (ours, stored))
    assert ours == stored


@pytest.fixture(scope="module")
def golden(golden_lm: Path) -> Golden:
    request = json.loads((golden_lm / "modes.json").read_text())
    tensors = read_arrays(golden_lm / "modes.npz")
    tokenizer = Tokenizer.from_directory(golden_lm / "ckpt" / "CosyVoice-BlankEN")
    text = TextFrontEnd(tokenizer, Profile.REFERENCE)
    segment, transcript = request["segment"], request["prompt_text_normalized"]
    assert_same_text(next(text.segments(request["tts_text"])), segment, request["tts_text"])
    assert_same_text(text.normalise(request["prompt_text"]), transcript, request["prompt_text"])
    instruction = list(text.encode_instruction(request["instruct_text"]))

    encoder = VoiceEncoder.from_directory(golden_lm / "ckpt")
    recorded = encoder.encode(golden_lm / request["prompt_wav"], transcript, text.encode(transcript)).prompt
    config = read_config(golden_lm)
    flow = FlowConfig(vocab_size=config.speech_tokens)
    voices = load_saved_voices(golden_lm / "spk2info_with_zero_shot.pt", tokenizer.encode, flow=flow)
    saved = voice_of(tensors["zero_shot_saved_spk.flow_embedding"], with_prompt(voices))
    sft = voice_of(tensors["sft.flow_embedding"], load_saved_voices(golden_lm / "ckpt" / "spk2info.pt").values())

    def build(name: str, voice: VoicePrompt) -> UtteranceInputs:
        mode = MODES[name]
        return utterance_inputs(
            mode,
            text_ids=() if mode is Mode.CONVERSION else text.encode(segment),
            voice=voice,
            instruction_ids=instruction if mode is Mode.INSTRUCT2 else None,
            source_tokens=(
                encoder.source_tokens(golden_lm / request["vc_source_wav"]) if mode is Mode.CONVERSION else None
            ),
        )

    inputs = {name: build(name, sft if name == "sft" else saved if "saved_spk" in name else recorded) for name in MODES}
    end = tokenizer.special_ids[END_OF_PROMPT]
    return Golden(request, tensors, inputs, instruction, end, vocabulary_of(config), golden_lm)


def test_every_stored_tensor_is_of_a_known_mode_and_field(golden: Golden) -> None:
    assert set(golden.request["modes"]) == set(MODES)
    fields = {*FIELDS, *(f"{field}_len" for field in FIELDS)}
    for mode, described in golden.request["modes"].items():
        stored = {key.removeprefix(f"{mode}.") for key in golden.tensors if key.startswith(f"{mode}.")}
        assert stored == {field for field in described if not field.startswith("__")}
        assert stored <= fields
        for field in stored:
            tensor = golden.tensors[f"{mode}.{field}"]
            assert [str(tensor.dtype), list(tensor.shape)] == described[field]
    assert sum(1 for key in golden.tensors if key.split(".")[0] in MODES) == len(golden.tensors)


@pytest.mark.parametrize("mode", [name for name in MODES if name not in ("vc", BUG)])
def test_tensors_equal_the_originals(golden: Golden, mode: str) -> None:
    inputs = golden.inputs[mode]
    for field, name in FIELDS.items():
        ours = getattr(inputs, name)
        if f"{mode}.{field}" in golden.tensors:
            golden.assert_same(ours, golden.stored(mode, field), field)
        else:
            assert ours is None or len(ours) == 0, field


@pytest.mark.parametrize("mode", [name for name in MODES if name not in ("vc", BUG)])
def test_stored_lengths_are_those_of_our_tensors(golden: Golden, mode: str) -> None:
    for field, name in FIELDS.items():
        if f"{mode}.{field}_len" in golden.tensors:
            assert golden.stored_length(mode, field) == [len(getattr(golden.inputs[mode], name))]


@pytest.mark.parametrize("mode", [name for name in MODES if name not in ("vc", BUG)])
def test_prompt_of_the_language_model(golden: Golden, mode: str) -> None:
    assert uni_prompt(golden.vocabulary, golden.inputs[mode]) == golden.stored_prompt(mode)


def test_instruction_with_a_saved_voice_is_obeyed(golden: Golden) -> None:
    """The original ignores the instruction and reads the voice's transcript instead; the rest of it is right."""
    inputs = golden.inputs[BUG]
    assert inputs.lm_prompt_text_ids.tolist() == golden.instruction_ids
    np.testing.assert_array_equal(inputs.lm_prompt_text_ids, golden.stored("instruct2", "prompt_text")[0])
    saved_transcript = golden.stored(BUG, "prompt_text")[0]
    np.testing.assert_array_equal(saved_transcript, golden.inputs["zero_shot_saved_spk"].lm_prompt_text_ids)
    assert golden.stored(BUG, "prompt_text_len").tolist() == [len(saved_transcript)]
    for field in ("text", "flow_prompt_speech_token", "prompt_speech_feat", "llm_embedding", "flow_embedding"):
        golden.assert_same(getattr(inputs, FIELDS[field]), golden.stored(BUG, field), field)
        if f"{BUG}.{field}_len" in golden.tensors:
            assert golden.stored(BUG, f"{field}_len").tolist() == [len(getattr(inputs, FIELDS[field]))]
    assert len(inputs.lm_prompt_speech) == 0
    ours, theirs = uni_prompt(golden.vocabulary, inputs), golden.stored_prompt(BUG)
    assert ours == golden.stored_prompt("instruct2")
    text = golden.vocabulary.text(inputs.text_ids)
    assert theirs == [
        golden.vocabulary.sos,
        *golden.vocabulary.text(saved_transcript),
        *text,
        golden.vocabulary.task,
    ]


def test_conversion_is_the_originals_with_its_prompt_aligned(golden: Golden) -> None:
    """The original leaves tokens and mel of the prompt at their own lengths."""
    inputs = golden.inputs["vc"]
    tokens, mel = golden.stored("vc", "flow_prompt_speech_token"), golden.stored("vc", "prompt_speech_feat")
    count = min(tokens.shape[1], mel.shape[1] // 2)
    golden.assert_same(inputs.flow_prompt_tokens, tokens[:, :count], "flow_prompt_speech_token")
    golden.assert_same(inputs.flow_prompt_mel, mel[:, : 2 * count], "prompt_speech_feat")
    golden.assert_same(inputs.speaker, golden.stored("vc", "flow_embedding"), "flow_embedding")
    assert inputs.source_tokens is not None
    golden.assert_same(inputs.source_tokens, golden.stored("vc", "source_speech_token"), "source_speech_token")
    assert golden.stored("vc", "source_speech_token_len").tolist() == [len(inputs.source_tokens)]
    assert len(inputs.text_ids) == len(inputs.lm_prompt_text_ids) == len(inputs.lm_prompt_speech) == 0


def test_features_before_alignment_equal_the_originals(golden: Golden) -> None:
    sound = decode_audio(golden.directory / golden.request["prompt_wav"])
    tokenizer = SpeechTokenizer(golden.directory / "ckpt" / "speech_tokenizer_v2.onnx")
    tokens = tokenizer.tokens(resample(sound.samples, sound.rate, 16000))
    mel = prompt_mel(resample(sound.samples, sound.rate, 24000))
    golden.assert_same(tokens, golden.stored("vc", "flow_prompt_speech_token"), "flow_prompt_speech_token")
    golden.assert_same(mel, golden.stored("vc", "prompt_speech_feat"), "prompt_speech_feat")
    assert golden.stored("vc", "flow_prompt_speech_token_len").tolist() == [len(tokens)]
    assert golden.stored("vc", "prompt_speech_feat_len").tolist() == [len(mel)]


def test_saved_voice_with_a_prompt_serves_sft(golden: Golden) -> None:
    """A KeyError in the original."""
    flow = FlowConfig(vocab_size=golden.vocabulary.speech_tokens)
    voices = load_saved_voices(golden.directory / "spk2info_with_zero_shot.pt", flow=flow)
    saved = voice_of(golden.stored("zero_shot_saved_spk", "flow_embedding"), with_prompt(voices))
    inputs = utterance_inputs(Mode.SFT, text_ids=golden.inputs["sft"].text_ids, voice=saved)
    golden.assert_same(inputs.speaker, golden.stored("zero_shot_saved_spk", "flow_embedding"), "flow_embedding")
    assert len(inputs.flow_prompt_tokens) == len(inputs.flow_prompt_mel) == len(inputs.lm_prompt_speech) == 0
    assert uni_prompt(golden.vocabulary, inputs) == golden.stored_prompt("sft")
