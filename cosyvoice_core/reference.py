"""The original's own streaming procedure, kept for parity with it; the service does not use it.

It recomputes the whole prefix at every hop, ends with a mask of another kind, restarts the source phase and
cross-fades over what that breaks (docs/model.md, "Streaming" and "Differences from the original").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cosyvoice_core.flow import FlowModel
from cosyvoice_core.vocoder import Vocoder
from cosyvoice_core.vocoder.crossfade import crossfade
from cosyvoice_core.vocoder.speed import reference_resize

NoiseOfCall = Callable[[int, int], Tensor]
"""(index of the vocoder call, samples) -> (1, samples, partials) standard normal noise."""


@dataclass(frozen=True, slots=True)
class ReferenceSettings:
    """Sizes of hops (tokens) and of what is kept from one vocoder call to the next (mel frames)."""

    first_hop: int = 25
    max_hop: int = 100
    growth: int = 2
    kept_frames: int = 8


@dataclass(frozen=True, slots=True)
class VocoderCall:
    """What one vocoder call saw and gave.

    prefix: tokens the flow ran on; streaming, finalize: how; frames: mel frames it gave, those of earlier calls
    included; mel (1, bins, T) and source (1, 1, N) as the vocoder saw them; emitted (1, samples); hop_after: size of
    the session's next hop (tokens).
    """

    prefix: int
    streaming: bool
    finalize: bool
    frames: int
    mel: Tensor
    source: Tensor
    emitted: Tensor
    hop_after: int


class ReferenceTokenToWave:
    """Token-to-wave of one utterance at a time, as the original does it."""

    def __init__(self, flow: FlowModel, vocoder: Vocoder, settings: ReferenceSettings | None = None) -> None:
        self._flow = flow
        self._vocoder = vocoder
        self._settings = settings or ReferenceSettings()

    def stream(
        self, tokens: Tensor, prompt_tokens: Tensor, prompt_mel: Tensor, speaker: Tensor, noise: NoiseOfCall
    ) -> Iterator[VocoderCall]:
        """Every call of a stream of tokens (N,), in order; a fresh session each time (hop sizes are its own)."""
        settings, lookahead = self._settings, self._flow.config.lookahead_tokens
        kept_samples = settings.kept_frames * self._vocoder.config.samples_per_frame
        hop, offset, number = settings.first_hop, 0, 0
        pad = -len(prompt_tokens) % hop
        kept: tuple[Tensor, Tensor, Tensor] | None = None
        ended = False
        while not ended:
            need = hop + (pad if offset == 0 else 0)
            ended = len(tokens) - offset < need + lookahead
            prefix = tokens if ended else tokens[: offset + need + lookahead]
            whole = self._flow.mel(prefix, prompt_tokens, prompt_mel, speaker, streaming=not ended, finalize=ended)
            mel = whole[None, :, self._flow.config.mel_ratio * offset :]
            cache_source = mel.new_zeros(1, 1, 0)
            if kept is not None:
                mel = torch.cat((kept[0], mel), dim=2)
                cache_source = kept[1]
            samples = mel.shape[2] * self._vocoder.config.samples_per_frame
            speech, source = self._vocoder.reference_vocode(mel, noise(number, samples), cache_source)
            if kept is not None:
                speech = crossfade(speech, kept[2], kept_samples)
            emitted = speech if ended else speech[:, :-kept_samples]
            if not ended:
                hop = min(settings.max_hop, settings.growth * hop)
            yield VocoderCall(len(prefix), not ended, ended, whole.shape[1], mel, source, emitted, hop)
            kept = mel[:, :, -settings.kept_frames :], source[:, :, -kept_samples:], speech[:, -kept_samples:]
            offset += need
            number += 1

    def one_shot(
        self,
        tokens: Tensor,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker: Tensor,
        noise: NoiseOfCall,
        *,
        speed: float = 1.0,
    ) -> VocoderCall:
        """All tokens in one call, with full attention and a change of speed if asked for."""
        mel = self._flow.mel(tokens, prompt_tokens, prompt_mel, speaker, streaming=False, finalize=True)[None]
        frames = mel.shape[2]
        if speed != 1.0:
            mel = reference_resize(mel, speed)
        samples = mel.shape[2] * self._vocoder.config.samples_per_frame
        speech, source = self._vocoder.reference_vocode(mel, noise(0, samples), mel.new_zeros(1, 1, 0))
        return VocoderCall(len(tokens), False, True, frames, mel, source, speech, self._settings.first_hop)
