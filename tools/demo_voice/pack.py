"""Stage `pack`: what the stages made, as a checkpoint in the official layout, in half precision where that is enough.

Saved voices are made by the voice encoder that serves, from recordings that lie beside them. Knows no training.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cosyvoice_core.audio.encode import write_wav
from cosyvoice_core.audio.features import MEL_RATE
from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.layout import DIRECTION, MAGNITUDE, TEXT_EMBEDDING, TIED_HEAD, vocoder_layout
from cosyvoice_core.checkpoint.official_yaml import official_yaml
from cosyvoice_core.checkpoint.qwen_config import qwen_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import LMConfig, ModelConfig, VocoderConfig
from cosyvoice_core.lm.merge import HEAD_BIAS, HEAD_WEIGHT
from cosyvoice_core.text.tokenizer import Tokenizer
from cosyvoice_core.voice.encoder import VoiceEncoder
from cosyvoice_core.voice.saved import save_voices
from tools.demo_voice.codec import train as codec
from tools.demo_voice.data.corpus import Corpus
from tools.demo_voice.data.voices import SAVED
from tools.demo_voice.flow import train as flow
from tools.demo_voice.lm import train as lm
from tools.demo_voice.speaker import train as speaker
from tools.demo_voice.text import train as text
from tools.demo_voice.vocoder import train as vocoder

LARGEST_MB = 40
_NEVER = -60.0
"""Bias of ids that no training sequence holds."""
_PROMPT_TOKENS = (60, 110)
_EXACT = "f0_predictor."
"""Pitch is summed over an utterance: its predictor stays in single precision."""


def pack(stages: Path, target: Path, corpus: Corpus, config: ModelConfig, codes: int) -> dict[str, float]:
    """Write the checkpoint; stages: the folder that holds each stage's own. codes: how many of the rows are in use.

    Raises ValueError when it is larger than LARGEST_MB, CheckpointError when it cannot be read back.
    """
    target.mkdir(parents=True, exist_ok=True)
    files = CheckpointDirectory(target)
    files.settings.write_text(official_yaml(config), encoding="utf-8")
    shutil.copytree(stages / "text" / text.FOLDER, files.tokenizer, dirs_exist_ok=True)
    files.lm_config.write_text(
        json.dumps({"architectures": ["Qwen2ForCausalLM"], **qwen_config(config.lm)}, indent=1), encoding="utf-8"
    )
    shutil.copyfile(stages / "tokenizer" / codec.ONNX, files.speech_tokenizer)
    shutil.copyfile(stages / "speaker" / speaker.ONNX, files.speaker_encoder)
    torch.save(_halved(lm_state(read_state(stages / "lm" / lm.STATE), config.lm, codes)), files.llm)
    torch.save(_halved(read_state(stages / "flow" / flow.STATE)), files.flow)
    torch.save(_halved(hift_state(read_state(stages / "vocoder" / vocoder.STATE), config.vocoder)), files.vocoder)
    _save_voices(files, corpus)
    files.verify()
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6
    if size > LARGEST_MB:
        raise ValueError(f"{target}: {size:.1f} MB, more than {LARGEST_MB}")
    return {"megabytes": size}


def lm_state(state: Mapping[str, Tensor], config: LMConfig, codes: int) -> dict[str, Tensor]:
    """Tensors of `llm.pt`: ids beyond the codes, and the one that means nothing, can never be drawn."""
    packed = {key: value.clone() for key, value in state.items()}
    unused = [*range(codes, config.speech_tokens), config.speech_tokens + 1]
    packed[HEAD_WEIGHT][unused] = 0.0
    packed[HEAD_BIAS][unused] = _NEVER
    packed[TIED_HEAD] = packed[TEXT_EMBEDDING]
    return packed


def hift_state(state: Mapping[str, Tensor], config: VocoderConfig) -> dict[str, Tensor]:
    """Tensors of `hift.pt`, with weight-normalised convolutions as the two parts the file has."""
    packed = {}
    for key in vocoder_layout(config):
        if key.endswith((MAGNITUDE, DIRECTION)):
            weight = state[f"{key.removesuffix(MAGNITUDE).removesuffix(DIRECTION)}.weight"]
            size = weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1))
            packed[key] = size if key.endswith(MAGNITUDE) else weight.clone()
        else:
            packed[key] = state[key].clone()
    return packed


def _halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Half precision; tensors that share storage go on sharing it, so that the file holds them once."""
    made: dict[int, Tensor] = {}
    out = {}
    for key, value in state.items():
        kind = torch.float32 if key.startswith(_EXACT) else torch.float16
        out[key] = made.setdefault(value.data_ptr(), value.to(kind)) if value.numel() else value.to(kind)
    return out


def _save_voices(files: CheckpointDirectory, corpus: Corpus) -> None:
    """Of every saved voice that speaks in the corpus: a recording, its text, and the voice made of them."""
    prompts = files.path / "prompts"
    prompts.mkdir(exist_ok=True)
    encoder, tokenizer = VoiceEncoder.from_directory(files.path), Tokenizer.from_directory(files.tokenizer)
    by_voice, voices = corpus.by_voice(), {}
    for voice in SAVED:
        if voice.name not in by_voice:
            continue
        number = min(by_voice[voice.name], key=lambda each: _unfitness(corpus.utterances[each].tokens))
        transcript = corpus.utterances[number].text
        recording = prompts / f"{voice.name}.wav"
        write_wav(recording, [corpus.wave(number)], MEL_RATE)
        (prompts / f"{voice.name}.txt").write_text(transcript + "\n", encoding="utf-8")
        voices[voice.name] = encoder.encode(recording, transcript, tokenizer.encode(transcript)).prompt
    save_voices(files.path / "spk2info.pt", voices)


def _unfitness(tokens: int) -> float:
    """How far a recording is from the length of a good prompt."""
    least, most = _PROMPT_TOKENS
    return abs(tokens - (least + most) / 2)
