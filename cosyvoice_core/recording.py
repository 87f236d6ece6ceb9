"""Work on tensors of fixed shapes: done by plain calls, or recorded once as a CUDA graph and replayed.

A graph reads and writes the same memory each time. So does the plain way, so that what holds for the one on a CPU holds
for the other up to the recording itself, which has not yet run on a GPU. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def batch_sizes(most: int) -> list[int]:
    """1, 2, 4 ... up to `most`: numbers of rows that a batch is filled up to. Raises ValueError below 1."""
    if most < 1:
        raise ValueError(f"a batch has 1 row or more, got {most}")
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes


class FixedWork:
    """One computation for inputs of one shape."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        compute: Callable[[], tuple[Tensor, ...]],
        *,
        record: bool = False,
        pool: Any = None,
    ) -> None:
        """`compute` reads `inputs` and is called here, more than once with `record`, which needs a CUDA device.

        pool: memory that several graphs take for what they compute on the way (`torch.cuda.graph_pool_handle`), as
        only one of them runs at a time. Raises ValueError for `record` on another device.
        """
        if record and inputs[0].device.type != "cuda":
            raise ValueError(f"CUDA graphs need a CUDA device, the tensors are on {inputs[0].device}")
        self._inputs = inputs
        self._compute = compute
        self._graph = None
        if not record:
            self._outputs = compute()
            return
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            compute()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._outputs = compute()

    def run(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs for other values of the inputs; the next run overwrites them."""
        for mine, value in zip(self._inputs, given, strict=True):
            mine.copy_(value, non_blocking=True)
        if self._graph is not None:
            self._graph.replay()
        else:
            for mine, value in zip(self._outputs, self._compute(), strict=True):
                mine.copy_(value)
        return self._outputs
