"""The flow model: speech tokens, prompt and speaker vector to mel frames, whole sequences at a time.

`session` runs the same layers incrementally; this module is the recomputing form and the oracle for it.
Does not know text, audio or how tokens arrive. Source: docs/model.md, "Token encoder" and "Flow matching".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.checkpoint.tensors import load_strict
from cosyvoice_core.config import FlowConfig
from cosyvoice_core.flow.convolution import freeze_convolutions
from cosyvoice_core.flow.encoder import TokenEncoder
from cosyvoice_core.flow.estimator import Estimator
from cosyvoice_core.flow.noise import StartNoise
from cosyvoice_core.flow.solver import Solver


class _Decoder(nn.Module):
    """Holds the estimator under the name it has in the checkpoint."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.estimator = Estimator(config)


class FlowNetwork(nn.Module):
    """The tensors of `flow.pt` under their official names."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.input_embedding = nn.Embedding(config.vocab_size, config.encoder_dim)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_dim, config.mel_bins)
        self.encoder = TokenEncoder(config)
        self.encoder_proj = nn.Linear(config.encoder_dim, config.mel_bins)
        self.decoder = _Decoder(config)


class FlowModel:
    """Loaded weights, the solver and the fixed noise; immutable, shared by all streams of a process.

    `unconditional` are the conditions of one frame without tokens, speaker and prompt, the same for every frame.
    """

    def __init__(self, network: FlowNetwork, config: FlowConfig) -> None:
        self.config = config
        self.network = network.eval().requires_grad_(False)
        freeze_convolutions(network)
        parameter = next(network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        with torch.inference_mode():
            self.solver = Solver(network.decoder.estimator, config.ode_steps, config.cfg_rate)
            nothing = torch.zeros((1, 1, config.mel_bins), device=self.device, dtype=self.dtype)
            self.unconditional = network.decoder.estimator.conditions(nothing, nothing[0], nothing)
        self.noise = StartNoise(config.mel_bins, self.device, self.dtype)

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Tensor],
        config: FlowConfig,
        *,
        source: str = "flow.pt",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> FlowModel:
        """Build from the official state dict. Raises CheckpointError naming tensors that do not fit."""
        with torch.device("meta"):
            network = FlowNetwork(config)
        network.to_empty(device="cpu")
        load_strict(network, state, source)
        return cls(network.to(device=device, dtype=dtype), config)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids (T,) to (1, T, dim); negative ids read as 0."""
        embedded: Tensor = self.network.input_embedding(self._here(tokens).clamp(min=0).long())[None]
        return embedded

    def speaker(self, embedding: Tensor) -> Tensor:
        """Speaker vector (speaker_dim,) to the estimator's (1, bins)."""
        unit = F.normalize(self._here(embedding).to(self.dtype)[None], dim=1)
        projected: Tensor = self.network.spk_embed_affine_layer(unit)
        return projected

    def condition(self, prompt_mel: Tensor, first: int, frames: int) -> Tensor:
        """Prompt mel (M, bins) at absolute frames first..first+frames, zeros past its end; (1, frames, bins)."""
        out = torch.zeros((1, frames, self.config.mel_bins), device=self.device, dtype=self.dtype)
        shown = prompt_mel[first : first + frames]
        out[0, : len(shown)] = self._here(shown)
        return out

    def _here(self, values: Tensor) -> Tensor:
        """On the device, without waiting for what it does meanwhile."""
        return values.to(self.device, non_blocking=True)

    @torch.inference_mode()
    def mel(
        self,
        tokens: Tensor,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker: Tensor,
        *,
        streaming: bool,
        finalize: bool,
    ) -> Tensor:
        """Mel (bins, frames) of all tokens after the prompt, computed from nothing.

        tokens (N,), prompt_tokens (P,) ids; prompt_mel (M, bins); speaker (speaker_dim,). When not `finalize` the
        last `lookahead_tokens` tokens are only looked ahead at and give no frames.
        """
        everything = self.embed(torch.cat((prompt_tokens, tokens)))
        cut = everything.shape[1] if finalize else everything.shape[1] - self.config.lookahead_tokens
        context = None if finalize else everything[:, cut:]
        hidden = self.network.encoder(everything[:, :cut], context, streaming=streaming)
        mu = self.network.encoder_proj(hidden)
        frames = mu.shape[1]
        mel = self.solver.solve(
            self.noise.frames(0, frames)[None],
            mu,
            self.speaker(speaker),
            self.condition(prompt_mel, 0, frames),
            streaming=streaming,
        )
        return mel[0, len(prompt_mel) :].T.float()
