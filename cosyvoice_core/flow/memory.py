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

TAIL_WIDTH = 2
"""Earlier frames that each of the estimator's convolutions sees."""


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

    def __init__(
        self, model: FlowModel, budget_bytes: int, form: CacheForm = CacheForm.KEYS_VALUES, *, slots: int = 0
    ) -> None:
        """A budget of less than one page is allowed: every chunk then recomputes what came before it.

        slots: streams in a step of fixed shape (`fixed.py`), each of which gets two places that belong to no page.
        Raises ValueError when the budget does not hold those.
        """
        self.form = form
        self.slots = slots
        self.page_bytes = page_bytes(model, form)
        self.page_frames = model.config.chunk_frames
        self._rows = [rows_of(step) for step in range(model.config.ode_steps)]
        self._row_count = sum(self._rows)
        spare = -(-(ROWS * slots + 1) // self._row_count) if slots else 0
        count = budget_bytes // self.page_bytes - spare
        if spare and count < 0:
            raise ValueError(f"{slots} slots need {spare} pages of {self.page_bytes} bytes, the budget is less")
        self.pages = PagePool(count)
        self._all_pages = count + spare
        self.kept_shape = form.shape(model.config)
        """Tensors, heads and width of what is kept of a frame."""
        tensors, heads, width = self.kept_shape
        layers = model.network.decoder.estimator.attention_layers
        frames = self._all_pages * self.page_frames
        # Untouched pages of a CPU's block cost no memory yet: the system gives it when they are first written.
        self._block = torch.empty(
            (layers, tensors, self._row_count, heads, frames, width), dtype=model.dtype, device=model.device
        )
        if spare:
            self._block[..., count * self.page_frames :, :].zero_()

    @property
    def nbytes(self) -> int:
        """Of the block, used or not."""
        return self._block.nbytes

    def kept(self, step: int, layer: int) -> Tensor:
        """What a layer keeps in one step, (tensors, rows, heads, frames of all pages, width)."""
        first = sum(self._rows[:step])
        return self._block[layer][:, first : first + self._rows[step]]

    def units(self, layer: int) -> Tensor:
        """What a layer keeps in all steps as (tensors, rows * heads * pages, frames of a page * width)."""
        tensors, rows, heads, _, width = self._block[layer].shape
        return self._block[layer].view(tensors, rows * heads * self._all_pages, self.page_frames * width)

    def place(self, step: int, row: int, page: int) -> int:
        """Number of the unit in `units` that holds a page of a step's row, for the first head."""
        return self._unit(sum(self._rows[:step]) + row, page)

    @property
    def heads_apart(self) -> int:
        """How far the unit of one head is from that of the next."""
        return self._all_pages

    @property
    def blank(self) -> int:
        """A place that holds zeros and is never written; only with slots."""
        return self._unit(0, self.pages.count)

    def scratch(self, slot: int, row: int) -> int:
        """The place of a slot's row that nobody reads in a later step; only with slots."""
        number = 1 + ROWS * slot + row
        return self._unit(number % self._row_count, self.pages.count + number // self._row_count)

    def _unit(self, row: int, page: int) -> int:
        return row * self.kept_shape[1] * self._all_pages + page
