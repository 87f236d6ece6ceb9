"""ONNX models opened and run by position of their inputs, with one kind of error. Knows no features.

Source: docs/model.md, "Prompt features".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as status

from cosyvoice_core.errors import CheckpointError, EngineError

CPU = ("CPUExecutionProvider",)
CUDA_OR_CPU = ("CUDAExecutionProvider", "CPUExecutionProvider")

_FAILURES = (
    status.Fail,
    status.EPFail,
    status.EngineError,
    status.InvalidArgument,
    status.InvalidGraph,
    status.InvalidProtobuf,
    status.NoModel,
    status.NoSuchFile,
    status.NotImplemented,
    status.RuntimeException,
    RuntimeError,
    ValueError,
)


class OnnxModel:
    """One ONNX file, whose inputs are given in order (exports name them differently).

    inputs: what the model must take, in order, as (type, shape) with None for any size. Providers that this build
    of onnxruntime lacks are left out. Raises CheckpointError when the file is missing, is no ONNX model or takes
    other inputs.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[tuple[str, tuple[int | None, ...]]],
        providers: Sequence[str] = CPU,
        threads: int = 1,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        if not path.is_file():
            raise CheckpointError(f"{path}: file is missing; expected an ONNX model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        available = onnxruntime.get_available_providers()
        usable = [name for name in providers if name in available] or list(CPU)
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=usable)
        except _FAILURES as error:
            raise CheckpointError(f"{path}: not a usable ONNX model ({_first_line(error)})") from error
        self._path = path
        found = [(node.type, node.shape) for node in self._session.get_inputs()]
        if len(found) != len(inputs) or not all(map(_accepts, found, inputs)):
            raise CheckpointError(f"{path}: takes {_described(found)}, expected {_described(inputs)}")
        self._names = [node.name for node in self._session.get_inputs()]

    @property
    def providers(self) -> tuple[str, ...]:
        """Providers in use, preferred first."""
        return tuple(self._session.get_providers())

    def run(self, *values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """First output for the inputs given in order. Raises EngineError when the model fails."""
        try:
            outputs = self._session.run(None, dict(zip(self._names, values, strict=True)))
        except _FAILURES as error:
            raise EngineError(f"{self._path.name} failed: {_first_line(error)}") from error
        return np.asarray(outputs[0])


def _accepts(found: tuple[str, list[object]], wanted: tuple[str, tuple[int | None, ...]]) -> bool:
    """A size, or a whole shape, that the file leaves open fits any; so does a size that the caller leaves open."""
    (kind, sizes), (wanted_kind, wanted_sizes) = found, wanted
    if kind != wanted_kind or (sizes and len(sizes) != len(wanted_sizes)):
        return False
    pairs = zip(sizes, wanted_sizes, strict=False)
    return all(want is None or not isinstance(size, int) or size == want for size, want in pairs)


def _described(inputs: Sequence[tuple[str, Sequence[object]]]) -> str:
    return ", ".join(f"{kind} {['?' if size is None else size for size in shape]}" for kind, shape in inputs)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
