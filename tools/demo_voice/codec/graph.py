"""ONNX graphs written node by node, as the small networks here need no exporter. Knows operators, no models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

_OPSET = 17
_IR = 9


class Graph:
    """Collects nodes; each method returns the name of its result."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._count = 0

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def constant(self, value: npt.NDArray[Any]) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, tensor: Tensor) -> str:
        return self.constant(tensor.detach().cpu().float().numpy())

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        self._count += 1
        name = f"{operator.lower()}_{self._count}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def conv(self, module: nn.Conv1d, x: str) -> str:
        padding = int(module.padding[0])
        biases = [] if module.bias is None else [self.weight(module.bias)]
        return self.node(
            "Conv",
            x,
            self.weight(module.weight),
            *biases,
            strides=list(module.stride),
            dilations=list(module.dilation),
            pads=[padding, padding],
        )

    def linear(self, module: nn.Linear, x: str) -> str:
        product = self.node("MatMul", x, self.weight(module.weight.T))
        return self.node("Add", product, self.weight(module.bias))

    def save(self, path: Path, result: str, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """Check and write the graph whose output `name` is `result`."""
        self._nodes.append(helper.make_node("Identity", [result], [name]))
        graph = helper.make_graph(
            self._nodes,
            path.stem,
            self._inputs,
            [helper.make_tensor_value_info(name, kind, list(shape))],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(path))


FLOAT, INT32 = int(TensorProto.FLOAT), int(TensorProto.INT32)
