"""One sentence end to end at official dims: random weights written in official format, loaded by the usual loader.

Says what each stage costs, not how it sounds. The two ONNX front-end models come from the demo checkpoint: their
real sizes are not reproduced here.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from cosyvoice_core.bench.measure import Measurement
from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.random import write_random_checkpoint
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import ModelConfig
from cosyvoice_core.flow import FlowModel, FlowSession
from cosyvoice_core.hops import HopPlan
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from cosyvoice_core.text.frontend import TextFrontEnd
from cosyvoice_core.text.tokenizer import Tokenizer
from cosyvoice_core.utterance import SpeechRequest, UtterancePlanner
from cosyvoice_core.vocoder import Vocoder
from cosyvoice_core.voice.encoder import VoiceEncoder
from cosyvoice_core.waveform import WaveformSession

_SENTENCE = "The quick brown fox jumps over the lazy dog."


def run_full(
    front_end: Path, device: torch.device, dtype: torch.dtype, tokens: int, keep: Path | None, seed: int
) -> Measurement:
    """Write, load and run a full-size checkpoint. `keep` is a folder to leave it in (and to reuse it from)."""
    measurement = Measurement(f"full size, {tokens} speech tokens, {str(dtype).removeprefix('torch.')}", device)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        _run(keep, front_end, tokens, dtype, seed, measurement)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _run(Path(folder), front_end, tokens, dtype, seed, measurement)
    return measurement


def _run(folder: Path, front_end: Path, tokens: int, dtype: torch.dtype, seed: int, measurement: Measurement) -> None:
    device = measurement.device
    files = CheckpointDirectory(folder)
    if files.missing():
        with measurement.step("write random checkpoint"):
            write_random_checkpoint(folder, ModelConfig(), seed=seed, front_end=front_end)
    config = read_model_config(folder)
    with measurement.step("load language model"):
        lm = TorchEngine.from_directory(folder, config.lm, device=device, dtype=dtype)
    with measurement.step("load flow decoder"):
        flow = FlowModel.from_state(
            read_state(files.flow), config.flow, source=str(files.flow), device=device, dtype=dtype
        )
    with measurement.step("load vocoder"):
        vocoder = Vocoder.from_state(read_state(files.vocoder), config.vocoder, str(files.vocoder)).to(device)

    text = TextFrontEnd(Tokenizer.from_directory(files.tokenizer))
    planner = UtterancePlanner(text, config.lm)
    with measurement.step("encode voice prompt"):
        prompt = next(iter(sorted((front_end / "prompts").glob("*.wav"))))
        transcript = prompt.with_suffix(".txt").read_text().strip()
        voice = VoiceEncoder.from_directory(folder).encode(prompt, *planner.transcript(transcript)).prompt
    utterance = next(planner.utterances(SpeechRequest(text=_SENTENCE, voice=voice, seed=seed)))
    # Random weights know no end of speech; the length is set instead.
    utterance = replace(utterance, min_tokens=tokens, max_tokens=tokens)
    vocabulary = SpeechVocabulary.cosyvoice2(config.lm.text_rows, config.lm.speech_tokens)
    audio_s = tokens / config.token_rate
    ids: list[int] = []
    stream = lm.generate(utterance.token_request(vocabulary))
    with measurement.step("language model: first token"):
        ids.extend(islice(stream, 1))
    with measurement.step("language model: the rest", audio_s - 1 / config.token_rate):
        ids.extend(stream)

    inputs = [torch.from_numpy(array) for array in (voice.speech_tokens, voice.mel, voice.speaker)]
    with measurement.step("flow: prompt prefill"):
        session = FlowSession(flow, inputs[0], inputs[1], inputs[2])
        session.push((), last=False)
    waveform = WaveformSession(vocoder, seed=seed)
    first = next(HopPlan().ends(len(voice.speech_tokens), config.flow))
    hop_s = (first - config.flow.lookahead_tokens) / config.token_rate
    with measurement.step("flow: first hop", hop_s):
        mel = session.push(ids[:first], last=False)
    with measurement.step("vocoder: first hop", hop_s):
        waveform.push(mel, last=False)
    with measurement.step("flow: the rest, incremental", audio_s - hop_s):
        mel = session.push(ids[first:], last=True)
    with measurement.step("vocoder: the rest", audio_s - hop_s):
        waveform.push(mel, last=True)
    with measurement.step("flow: one shot, full attention", audio_s):
        flow.mel(torch.tensor(ids), *inputs, streaming=False, finalize=True)
