"""What narrower numbers cost: mel and sound of flow and vocoder in each number format, against float32.

The flow runs as it is served, chunk by chunk with caches. Of the vocoder only the generator's convolutions are
narrowed (torch's autocast), which the service does not offer: pitch, phase and both spectra stay as they are.
Says nothing about speed or about how it sounds. Weights are a checkpoint's, or random of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.layout import flow_layout, vocoder_layout
from cosyvoice_core.checkpoint.random import random_state
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import ModelConfig, VocoderConfig
from cosyvoice_core.errors import CheckpointError, EngineError
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.session import FlowSession
from cosyvoice_core.vocoder import Span, Vocoder, VocoderStream
from cosyvoice_core.vocoder.hift import HiFTGenerator
from cosyvoice_core.vocoder.section import Section
from cosyvoice_core.voice.saved import load_saved_voices

_FFT, _HOP = 1024, 256
_FLOOR_DB = 80.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Format:
    """Of numbers: dtype, and whether CUDA may round float32 factors to 10 bits (TF32)."""

    name: str
    dtype: torch.dtype
    tf32: bool = False


_FLOAT32 = _Format("float32", torch.float32)


@dataclass(frozen=True, slots=True)
class Spoken:
    """What an utterance is made of: prompt tokens (P,), prompt mel (2P, bins), speaker vector, its own tokens (N,)."""

    prompt: Tensor
    prompt_mel: Tensor
    speaker: Tensor
    tokens: Tensor


@dataclass(frozen=True, slots=True)
class Material:
    """Weights under a name, and utterances to try them on."""

    name: str
    config: ModelConfig
    flow: Mapping[str, Tensor]
    vocoder: Mapping[str, Tensor]
    utterances: tuple[Spoken, ...]

    @classmethod
    def of_checkpoint(cls, directory: CheckpointDirectory) -> Material:
        """The saved voices of a checkpoint, each saying what the next one said.

        Raises CheckpointError when there are none.
        """
        config = read_model_config(directory.path)
        if directory.saved_voices is None:
            raise CheckpointError(f"{directory.path}: no saved voices, whose speech tokens are needed")
        voices = list(load_saved_voices(directory.saved_voices, lambda _text: (), flow=config.flow).values())
        spoken = tuple(
            Spoken(*(torch.from_numpy(array) for array in (voice.speech_tokens, voice.mel, voice.speaker, said)))
            for voice, said in zip(voices, [other.speech_tokens for other in (*voices[1:], voices[0])], strict=True)
        )
        return cls(directory.path.name, config, read_state(directory.flow), read_state(directory.vocoder), spoken)

    @classmethod
    def random(cls, name: str, config: ModelConfig, *, seed: int, prompt: int, tokens: int) -> Material:
        """Seeded random weights and one utterance of random tokens."""
        flow, generator = config.flow, torch.Generator().manual_seed(seed)
        spoken = Spoken(
            torch.randint(0, flow.vocab_size, (prompt,), generator=generator),
            torch.randn((flow.mel_ratio * prompt, flow.mel_bins), generator=generator),
            torch.randn((flow.speaker_dim,), generator=generator),
            torch.randint(0, flow.vocab_size, (tokens,), generator=generator),
        )
        return cls(
            name,
            config,
            random_state(flow_layout(flow), seed, "flow.pt"),
            random_state(vocoder_layout(config.vocoder), seed, "hift.pt"),
            (spoken,),
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """One stage in one format against float32, over all utterances of a material.

    mel_mean_abs, mel_max_abs: of log-mel values, None where the stage leaves mel alone; mel_deviation: standard
    deviation of the float32 mel, to set them against. spectral_db: log-spectral distance of the sound.
    failed: why there are no figures, else empty.
    """

    weights: str
    stage: str
    form: str
    mel_mean_abs: float | None = None
    mel_max_abs: float | None = None
    mel_deviation: float | None = None
    spectral_db: float | None = None
    failed: str = ""

    def record(self) -> dict[str, object]:
        return asdict(self)


def log_spectral_distance(heard: Tensor, expected: Tensor) -> float:
    """Distance in dB of two sounds (N,): root mean square over bins of a frame, mean over frames.

    Bins more than 80 dB below the loudest one of `expected` count as that low in both.
    """
    window = torch.hann_window(_FFT)
    powers = [
        torch.stft(sound.cpu().float(), _FFT, _HOP, window=window, return_complex=True).abs().square()
        for sound in (heard, expected)
    ]
    floor = powers[1].max() * 10 ** (-_FLOOR_DB / 10)
    levels = [10 * power.clamp(min=float(floor)).log10() for power in powers]
    return float((levels[0] - levels[1]).square().mean(dim=0).sqrt().mean())


def run_precision(
    materials: Sequence[Material], dtypes: Sequence[torch.dtype], device: torch.device, progress: Progress
) -> list[Difference]:
    """Each stage of each material in each format; `progress` is told what is measured now."""
    formats = [_Format(_name(dtype), dtype) for dtype in dtypes]
    if device.type == "cuda":
        formats.insert(0, _Format("TF32", torch.float32, tf32=True))
    return [difference for one in materials for difference in _differences(one, formats, device, progress)]


def _differences(
    material: Material, formats: Sequence[_Format], device: torch.device, progress: Progress
) -> Iterator[Difference]:
    progress(f"{material.name}: float32")
    mels = _mels(material, _FLOAT32, device)
    sounds = _sounds(material, mels, _FLOAT32, device)
    deviation = float(torch.cat([mel.flatten() for mel in mels]).std())

    def of_flow(form: str, narrow: Sequence[Tensor]) -> Difference:
        gaps = torch.cat([(mel - other).abs().flatten() for mel, other in zip(narrow, mels, strict=True)])
        heard = _sounds(material, narrow, _FLOAT32, device)
        return Difference(
            material.name, "flow", form, float(gaps.mean()), float(gaps.max()), deviation, _distance(heard, sounds)
        )

    yield of_flow("float32, at once", _mels(material, _FLOAT32, device, at_once=True))
    for form in formats:
        progress(f"{material.name}: flow in {form.name}")
        try:
            yield of_flow(form.name, _mels(material, form, device))
        except EngineError as error:
            yield Difference(material.name, "flow", form.name, failed=str(error))
    for form in formats:
        progress(f"{material.name}: vocoder in {form.name}")
        try:
            distance = _distance(_sounds(material, mels, form, device), sounds)
            yield Difference(material.name, "vocoder", form.name, spectral_db=distance)
        except EngineError as error:
            yield Difference(material.name, "vocoder", form.name, failed=str(error))


def precision_table(results: Sequence[Difference]) -> Iterator[str]:
    """Lines for people."""
    yield "against float32: log-mel values, and log-spectral distance of the sound"
    yield f"{'weights':<14}{'stage':<9}{'format':<18}{'mel mean':>11}{'mel max':>11}{'of std %':>10}{'sound dB':>10}"
    for result in results:
        line = f"{result.weights:<14}{result.stage:<9}{result.form:<18}"
        if result.failed:
            yield f"{line}  {result.failed}"
            continue
        if result.mel_mean_abs is None or result.mel_max_abs is None or result.mel_deviation is None:
            line += f"{'':>32}"
        else:
            share = 100 * result.mel_mean_abs / result.mel_deviation
            line += f"{result.mel_mean_abs:>11.2g}{result.mel_max_abs:>11.2g}{share:>10.2g}"
        yield f"{line}{result.spectral_db:>10.2g}"


def _distance(heard: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    pairs = zip(heard, expected, strict=True)
    return sum(log_spectral_distance(sound, other) for sound, other in pairs) / len(expected)


def _mels(material: Material, form: _Format, device: torch.device, *, at_once: bool = False) -> list[Tensor]:
    """Mel (bins, frames) of each utterance; raises EngineError for values that are not finite."""
    state, config = material.flow, material.config.flow
    with _tf32(form.tf32):
        model = FlowModel.from_state(state, config, source="flow.pt", device=device, dtype=form.dtype)
        mels = []
        for spoken in material.utterances:
            prompt = (spoken.prompt, spoken.prompt_mel, spoken.speaker)
            if at_once:
                mels.append(model.mel(spoken.tokens, *prompt, streaming=True, finalize=True).cpu())
            else:
                mels.append(FlowSession(model, *prompt).push(spoken.tokens, last=True))
        return mels


def _sounds(material: Material, mels: Sequence[Tensor], form: _Format, device: torch.device) -> list[Tensor]:
    """Samples (N,) of each mel; raises EngineError for values that are not finite."""
    kind = Vocoder if form.dtype is torch.float32 else _narrow_vocoder(form.dtype)
    with _tf32(form.tf32):
        vocoder = kind.from_state(material.vocoder, material.config.vocoder, "hift.pt").to(device)
        return [VocoderStream(vocoder, seed).push(mel, last=True) for seed, mel in enumerate(mels)]


def _narrow_vocoder(dtype: torch.dtype) -> type[Vocoder]:
    class NarrowVocoder(Vocoder):
        def __init__(self, config: VocoderConfig) -> None:
            super().__init__(config)
            self.generator = _NarrowGenerator(config, dtype)
            self.requires_grad_(False).eval()

    return NarrowVocoder


class _NarrowGenerator(HiFTGenerator):
    """Convolutions in `dtype`; both spectra, activations of sines and the sound in float32."""

    def __init__(self, config: VocoderConfig, dtype: torch.dtype) -> None:
        super().__init__(config)
        self._dtype = dtype

    def shape(self, mel: Section, spectrum: Section, frames: Span) -> Section:
        with torch.autocast(mel.values.device.type, self._dtype):
            shaped = super().shape(mel, spectrum, frames)
        return Section(shaped.values.float(), shaped.span, shaped.extent)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Whether CUDA may take TF32 for float32; no word on other devices."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
