"""The estimator's caches of all utterances: one preallocated block, planned in bytes and given out in pages.

A page holds what all attention layers keep of one chunk in all Euler steps, so that an utterance needs one page more
for each chunk. Pages lie on one axis of frames, so that attention reads neighbouring pages as one tensor without
copying. The first step keeps its conditional row only: the other is the same for all utterances (`unguided.py`).

Written pages count only once their chunk is complete; a step that failed is repeated over them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.pages import PagePool

ROWS = 2
"""Of one stream in an Euler step: conditional and unconditional."""


def rows_of(step: int) -> int:
    """Rows that a stream has in Euler step `step`."""
    return ROWS if step else 1


def page_bytes(model: FlowModel, form: CacheForm) -> int:
    """Bytes that one more chunk needs, the encoder's small caches (which lie elsewhere) included."""
    config = model.config
    item = model.dtype.itemsize
    rows = sum(rows_of(step) for step in range(config.ode_steps))
    layers = model.network.decoder.estimator.attention_layers
    estimator = rows * layers * form.floats(config) * config.chunk_frames
    lower, upper = config.encoder_blocks * config.chunk_tokens, config.upsampled_blocks * config.chunk_frames
    return (estimator + 2 * config.encoder_dim * (lower + upper)) * item


def form_within(model: FlowModel, budget_bytes: int, frames: int) -> CacheForm:
    """The faster form if the budget holds so many frames of it, else the smaller one."""
    chunks = -(-frames // model.config.chunk_frames)
    fits = page_bytes(model, CacheForm.KEYS_VALUES) * chunks <= budget_bytes
    return CacheForm.KEYS_VALUES if fits else CacheForm.INPUTS


class FlowMemory:
    """Pages of one device; `budget_bytes` is never exceeded, whoever asks."""

    def __init__(self, model: FlowModel, budget_bytes: int, form: CacheForm = CacheForm.KEYS_VALUES) -> None:
        """A budget of less than one page is allowed: every chunk then recomputes what came before it."""
        self.form = form
        self.page_bytes = page_bytes(model, form)
        self.page_frames = model.config.chunk_frames
        self.pages = PagePool(budget_bytes // self.page_bytes)
        tensors, heads, width = form.shape(model.config)
        layers = model.network.decoder.estimator.attention_layers
        frames = self.pages.count * self.page_frames
        # Untouched pages of a CPU's block cost no memory yet: the system gives it when they are first written.
        self._steps = [
            torch.empty((layers, tensors, rows_of(step), heads, frames, width), dtype=model.dtype, device=model.device)
            for step in range(model.config.ode_steps)
        ]

    @property
    def nbytes(self) -> int:
        """Of the block, used or not."""
        return sum(step.nbytes for step in self._steps)

    def kept(self, step: int, layer: int) -> Tensor:
        """What a layer keeps in one step, (tensors, rows, heads, frames of all pages, width)."""
        return self._steps[step][layer]
