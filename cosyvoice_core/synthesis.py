"""Request to sound in one process: offline use without Ray, and the oracle the service is tested against.

Composes the rooms; holds no mathematics of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import ModelConfig
from cosyvoice_core.errors import InputError
from cosyvoice_core.flow import FlowModel, FlowSession
from cosyvoice_core.flow.session import private_stepper
from cosyvoice_core.hops import HopCutter, HopPlan
from cosyvoice_core.inputs import FloatArray, UtteranceInputs, VoicePrompt
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from cosyvoice_core.text.frontend import Profile, TextFrontEnd
from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.split import SplitLimits
from cosyvoice_core.text.tokenizer import Tokenizer
from cosyvoice_core.utterance import SpeechRequest, Utterance, UtterancePlanner
from cosyvoice_core.vocoder import Vocoder
from cosyvoice_core.voice.alignment import ChunkAlignment
from cosyvoice_core.voice.encoder import EncodedVoice, VoiceEncoder
from cosyvoice_core.voice.saved import load_saved_voices
from cosyvoice_core.waveform import WaveformSession

OnToken = Callable[[int], None]


def _ignore(_token: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Speech:
    """A whole answer: samples (N,) float32 at `sample_rate` Hz, and the speech tokens of each segment."""

    samples: FloatArray
    sample_rate: int
    tokens: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Stages:
    """The three models, loaded."""

    lm: TorchEngine
    flow: FlowModel
    vocoder: Vocoder


class Synthesizer:
    """Speaks requests one at a time."""

    def __init__(
        self,
        config: ModelConfig,
        stages: Stages,
        planner: UtterancePlanner,
        voice_encoder: VoiceEncoder,
        voices: Mapping[str, VoicePrompt],
    ) -> None:
        self.config = config
        self.voices = dict(voices)
        self.planner = planner
        self._stages = stages
        self._flow_stepper = private_stepper(stages.flow)
        self._voice_encoder = voice_encoder
        self._vocabulary = SpeechVocabulary.cosyvoice2(config.lm.text_rows, config.lm.speech_tokens)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        profile: Profile = Profile.ROBUST,
        lexicon: Lexicon | None = None,
        limits: SplitLimits | None = None,
        hops: HopPlan | None = None,
    ) -> Synthesizer:
        """Load a checkpoint directory, or download one by model id.

        `hops`: the plan that prompts are cut to suit; a service sounds the same with the same one.
        `dtype` is that of language model and flow; the vocoder always runs in float32.
        Raises CheckpointError that names the file or tensor that is wrong.
        """
        directory = CheckpointDirectory(resolve_model(str(model)))
        directory.verify()
        config = read_model_config(directory.path)
        tokenizer = Tokenizer.from_directory(directory.tokenizer)
        text = TextFrontEnd(tokenizer, profile, lexicon, limits)
        vocoder = Vocoder.from_state(read_state(directory.vocoder), config.vocoder, str(directory.vocoder))
        stages = Stages(
            lm=TorchEngine.from_directory(directory.path, config.lm, device=device, dtype=dtype),
            flow=FlowModel.from_state(
                read_state(directory.flow), config.flow, source=str(directory.flow), device=device, dtype=dtype
            ),
            vocoder=vocoder.to(device),
        )
        saved = directory.saved_voices
        voices = load_saved_voices(saved, tokenizer.encode, flow=config.flow) if saved else {}
        encoder = VoiceEncoder.from_directory(directory.path)
        # The reference profile feeds the flow the whole prompt, as the original does.
        first = (hops or HopPlan()).min_first_tokens
        alignment = None if profile is Profile.REFERENCE else ChunkAlignment(config.flow.chunk_tokens, first)
        planner = UtterancePlanner(text, config.lm, alignment=alignment)
        return cls(config, stages, planner, encoder, voices)

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    def voice(self, name: str) -> VoicePrompt:
        """A saved voice. Raises InputError that lists the names there are."""
        if name not in self.voices:
            raise InputError("voice", f"there is no voice {name!r}", ", ".join(sorted(self.voices)))
        return self.voices[name]

    def encode_voice(self, audio: bytes | Path, transcript: str = "") -> EncodedVoice:
        """A voice from a few seconds of audio, with what is said in it or without; raises InputError."""
        normalised, ids = self.planner.transcript(transcript) if transcript.strip() else ("", ())
        return self._voice_encoder.encode(audio, normalised, ids)

    def speak(self, request: SpeechRequest, *, on_token: OnToken = _ignore) -> Speech:
        """The whole answer at once, with full attention in the flow; raises InputError."""
        parts, tokens = [], []
        for utterance in self.planner.utterances(request):
            ids = tuple(self._tokens(utterance, on_token))
            parts.append(self._render(utterance, ids))
            tokens.append(ids)
        return Speech(np.concatenate(parts), self.sample_rate, tuple(tokens))

    def stream(
        self, request: SpeechRequest, *, hops: HopPlan | None = None, on_token: OnToken = _ignore
    ) -> Iterator[FloatArray]:
        """The answer in pieces (N,) as they become final, with the chunk-causal flow; raises InputError."""
        for utterance in self.planner.utterances(request):
            yield from self.stream_tokens(utterance, self._tokens(utterance, on_token), hops or HopPlan())

    def convert(self, source: bytes | Path, voice: VoicePrompt, *, seed: int = 0, speed: float = 1.0) -> Speech:
        """The words of `source` in another voice; raises InputError."""
        parts, tokens = [], []
        for utterance, ids in self._conversions(source, voice, seed, speed):
            parts.append(self._render(utterance, ids))
            tokens.append(ids)
        return Speech(np.concatenate(parts), self.sample_rate, tuple(tokens))

    def stream_conversion(
        self,
        source: bytes | Path,
        voice: VoicePrompt,
        *,
        seed: int = 0,
        speed: float = 1.0,
        hops: HopPlan | None = None,
    ) -> Iterator[FloatArray]:
        """The same in pieces (N,) as they become final, with the chunk-causal flow; raises InputError."""
        for utterance, ids in self._conversions(source, voice, seed, speed):
            yield from self.stream_tokens(utterance, iter(ids), hops or HopPlan())

    def _conversions(
        self, source: bytes | Path, voice: VoicePrompt, seed: int, speed: float
    ) -> Iterator[tuple[Utterance, tuple[int, ...]]]:
        for index, piece in enumerate(self._voice_encoder.source(source)):
            ids = self._voice_encoder.tokens(piece)
            yield self.planner.conversion(ids, voice, seed=seed, speed=speed, index=index), tuple(ids.tolist())

    def stream_tokens(self, utterance: Utterance, tokens: Iterator[int], hops: HopPlan) -> Iterator[FloatArray]:
        """Sound of one utterance's tokens, hop by hop."""
        waveform = WaveformSession(self._stages.vocoder, seed=utterance.seed, speed=utterance.speed)
        cutter = HopCutter(hops.ends(len(utterance.inputs.flow_prompt_tokens), self.config.flow))
        with closing(
            FlowSession(self._stages.flow, *_flow_prompt(utterance.inputs), stepper=self._flow_stepper)
        ) as flow:
            for token in tokens:
                for hop in cutter.add((token,)):
                    samples = waveform.push(flow.push(hop, last=False), last=False)
                    if len(samples):
                        yield samples.cpu().numpy()
            yield waveform.push(flow.push(cutter.rest(), last=True), last=True).cpu().numpy()

    def _tokens(self, utterance: Utterance, on_token: OnToken) -> Iterator[int]:
        for token in self._stages.lm.generate(utterance.token_request(self._vocabulary)):
            on_token(token)
            yield token

    def _render(self, utterance: Utterance, ids: tuple[int, ...]) -> FloatArray:
        prompt_tokens, prompt_mel, speaker = _flow_prompt(utterance.inputs)
        tokens = torch.tensor(ids, dtype=torch.int32)
        mel = self._stages.flow.mel(tokens, prompt_tokens, prompt_mel, speaker, streaming=False, finalize=True)
        waveform = WaveformSession(self._stages.vocoder, seed=utterance.seed, speed=utterance.speed)
        samples: FloatArray = waveform.push(mel, last=True).cpu().numpy()
        return samples


def _flow_prompt(inputs: UtteranceInputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.from_numpy(inputs.flow_prompt_tokens),
        torch.from_numpy(inputs.flow_prompt_mel),
        torch.from_numpy(inputs.speaker),
    )
