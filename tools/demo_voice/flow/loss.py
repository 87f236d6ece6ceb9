"""What the flow is trained by: conditional flow matching with guidance dropout. Knows batches alone.

Source: Lipman et al. 2023, arXiv:2210.02747, with the cosine times and the dropout that CosyVoice2 is trained with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.flow.model import FlowNetwork
from tools.demo_voice.flow.windows import FlowBatch


@dataclass(frozen=True, slots=True)
class FlowLoss:
    """sigma: spread that is left at the end of the path; dropout: share of rows without conditions; mean_weight: of
    the distance between the encoder's own frames and the mel."""

    sigma: float = 1e-6
    dropout: float = 0.2
    mean_weight: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0 or self.sigma < 0.0 or self.mean_weight < 0.0:
            raise ValueError("dropout must be in [0, 1), sigma and mean_weight not negative")


@dataclass(frozen=True, slots=True)
class Path:
    """A point on the way from noise to mel, each (B, T, 80), its time (B,), and the velocity there."""

    point: Tensor
    velocity: Tensor
    time: Tensor

    @classmethod
    def drawn(cls, mel: Tensor, sigma: float) -> Path:
        """At times that are dense near the noise, as the solver's steps are."""
        noise = torch.randn_like(mel)
        time = 1 - torch.cos(torch.rand(len(mel), device=mel.device) * 0.5 * torch.pi)
        at = time[:, None, None]
        return cls((1 - (1 - sigma) * at) * noise + at * mel, mel - (1 - sigma) * noise, time)


@dataclass(frozen=True, slots=True)
class Given:
    """What the estimator is told: mu, prompt mel (B, T, 80) and speaker (B, 80)."""

    mu: Tensor
    speaker: Tensor
    condition: Tensor


def given(network: FlowNetwork, batch: FlowBatch, *, streaming: bool) -> Given:
    """The conditions of a batch, as the flow makes them when it speaks."""
    ahead = None if batch.ahead is None else network.input_embedding(batch.ahead)
    hidden = network.encoder(network.input_embedding(batch.tokens), ahead, streaming=streaming)
    frames = torch.arange(batch.mel.shape[1], device=batch.mel.device)
    known = (frames < batch.prompt[:, None])[:, :, None]
    return Given(
        mu=network.encoder_proj(hidden),
        speaker=network.spk_embed_affine_layer(F.normalize(batch.speaker, dim=1)),
        condition=batch.mel * known,
    )


def flow_losses(network: FlowNetwork, batch: FlowBatch, loss: FlowLoss, *, streaming: bool) -> dict[str, Tensor]:
    """`flow`: squared error of the velocity; `mean`: distance of the encoder's frames."""
    told = given(network, batch, streaming=streaming)
    path = Path.drawn(batch.mel, loss.sigma)
    kept = (torch.rand(len(batch.mel), device=batch.mel.device) >= loss.dropout).float()[:, None]
    estimator = network.decoder.estimator
    velocity = estimator(
        path.point,
        told.mu * kept[:, :, None],
        told.speaker * kept,
        told.condition * kept[:, :, None],
        estimator.project_time(path.time),
        streaming=streaming,
    )
    return {
        "flow": F.mse_loss(velocity.float(), path.velocity),
        "mean": F.l1_loss(told.mu.float(), batch.mel),
    }
