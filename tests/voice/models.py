"""Very small ONNX stand-ins with the interfaces of the speech tokenizer and the speaker encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_speech_tokenizer(path: Path, mel_bins: int = 128, vocabulary: int = 81) -> None:
    """A token per four frames: a scaled mean of the log-mel under the token, cut to the vocabulary."""
    nodes = [
        helper.make_node("ReduceMean", ["feats"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["mean"], ["pooled"], kernel_shape=[4], strides=[4], ceil_mode=1),
        helper.make_node("Mul", ["pooled", "scale"], ["scaled"]),
        helper.make_node("Abs", ["scaled"], ["positive"]),
        helper.make_node("Clip", ["positive", "least", "most"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["ids"], to=TensorProto.INT32),
        helper.make_node("Identity", ["feats_length"], ["seen_length"]),
    ]
    constants = {"scale": 40.0, "least": 0.0, "most": float(vocabulary - 1)}
    _write(
        path,
        nodes,
        constants,
        [
            helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, mel_bins, "T"]),
            helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
        ],
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, [1, 1, "P"]),
            helper.make_tensor_value_info("seen_length", TensorProto.INT32, [1]),
        ],
    )


def write_speaker_encoder(path: Path, dim: int = 192, scale: float = 1.0) -> None:
    """Standard deviations of the bins over time, spread over `dim` values."""
    spread = np.random.default_rng(0).standard_normal((80, dim)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["input", "input"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["variance"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["variance", "spread"], ["vector"]),
        helper.make_node("Mul", ["vector", "scale"], ["output"]),
    ]
    _write(
        path,
        nodes,
        {"spread": spread, "scale": scale},
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, "T", 80])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, dim])],
    )


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, object],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> None:
    stored = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "stand_in", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
