"""Where the flow's weights start: noise and the encoder's frames pass the estimator on a straight, linear way.

The velocity that is asked for is nearly mel minus noise. From an ordinary start a narrow estimator does not find the
way to hand the noise through its norms, and stays where it guesses the mean. Here the shortcuts of all residual blocks
carry both, what is added to them is small, and the last projection is fitted by least squares. Knows no training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cosyvoice_core.flow.model import FlowNetwork
from cosyvoice_core.flow.residual import Block, EntryResnet, Resnet
from tools.demo_voice.flow.loss import FlowLoss, Path, given
from tools.demo_voice.flow.windows import FlowBatch

_MEAN_LOG_MEL, _MEL_SCALE = -6.0, 0.3
_ADDED = 0.2
_GAIN, _OFFSET = 0.5, 2.5
"""Of the last norm: Mish is nearly linear around 2.5."""
_RIDGE = 1e-3


def needed_channels(mel_bins: int) -> int:
    """Noise and frames side by side."""
    return 2 * mel_bins


@torch.no_grad()
def start_straight(network: FlowNetwork, batch: FlowBatch) -> None:
    """Set the estimator's weights; `batch` is what the last projection is fitted to.

    Raises ValueError when the estimator has fewer channels than noise and frames together.
    """
    estimator = network.decoder.estimator
    bins, channels = estimator.final_proj.out_channels, estimator.final_proj.in_channels
    if channels < needed_channels(bins):
        raise ValueError(f"the straight start needs {needed_channels(bins)} channels, the estimator has {channels}")
    for module in estimator.modules():
        if isinstance(module, EntryResnet):
            _carry(module.res_conv, bins)
            _soften(module.block2)
        elif isinstance(module, Resnet):
            _mix(module.res_conv)
            _soften(module.block2)
    for down_or_up in (estimator.down_blocks[0], estimator.up_blocks[0]):
        assert isinstance(down_or_up, nn.ModuleList)
        conv = down_or_up[2]
        assert isinstance(conv, nn.Conv1d)
        _identity(conv)
    for name, parameter in estimator.named_parameters():
        if name.endswith(("attn1.to_out.0.weight", "ff.net.2.weight")):
            parameter.mul_(_ADDED)
    _identity(estimator.final_block.conv)
    norm = estimator.final_block.block["2"]
    assert isinstance(norm, nn.LayerNorm)
    norm.weight.fill_(_GAIN)
    norm.bias.fill_(_OFFSET)
    # The encoder's frames begin at the mean of the mel they are trained towards.
    network.encoder_proj.bias.copy_(batch.mel.mean((0, 1)))
    _fit_last(network, batch)


def _carry(shortcut: nn.Conv1d, bins: int) -> None:
    """Channels 0..bins are the noisy mel, the next ones the encoder's frames around zero."""
    nn.init.zeros_(shortcut.weight)
    assert shortcut.bias is not None
    nn.init.zeros_(shortcut.bias)
    index = torch.arange(bins)
    shortcut.weight[index, index, 0] = 1.0
    shortcut.weight[index + bins, index + bins, 0] = _MEL_SCALE
    shortcut.bias[bins : 2 * bins] = -_MEL_SCALE * _MEAN_LOG_MEL


def _mix(shortcut: nn.Conv1d) -> None:
    """Identity; of two inputs side by side their mean."""
    nn.init.zeros_(shortcut.weight)
    assert shortcut.bias is not None
    nn.init.zeros_(shortcut.bias)
    index = torch.arange(shortcut.out_channels)
    copies = shortcut.in_channels // shortcut.out_channels
    for copy in range(copies):
        shortcut.weight[index, index + copy * shortcut.out_channels, 0] = 1.0 / copies


def _identity(conv: nn.Conv1d) -> None:
    """The last tap of a causal convolution is the frame itself."""
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    index = torch.arange(conv.out_channels)
    conv.weight[index, index, -1] = 1.0


def _soften(block: Block) -> None:
    norm = block.block["2"]
    assert isinstance(norm, nn.LayerNorm)
    norm.weight.mul_(_ADDED)


def _fit_last(network: FlowNetwork, batch: FlowBatch) -> None:
    """Set the last projection so that it gives the velocities of `batch` as well as a linear layer can."""
    estimator = network.decoder.estimator
    seen: list[Tensor] = []
    hook = estimator.final_block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    told = given(network, batch, streaming=False)
    path = Path.drawn(batch.mel, FlowLoss().sigma)
    times = estimator.project_time(path.time)
    estimator(path.point, told.mu, told.speaker, told.condition, times, streaming=False)
    hook.remove()
    rows = seen[0].flatten(0, 1).double()
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
    goals = path.velocity.flatten(0, 1).double()
    square = rows.T @ rows + _RIDGE * len(rows) * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    solution = torch.linalg.solve(square, rows.T @ goals).float()
    estimator.final_proj.weight.copy_(solution[:-1].T[:, :, None])
    assert estimator.final_proj.bias is not None
    estimator.final_proj.bias.copy_(solution[-1])
