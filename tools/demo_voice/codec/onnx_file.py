"""The speech tokenizer as an ONNX file with the official inputs and output: network and code book in one graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from tools.demo_voice.codec.codes import LEVELS, TURNS, CodeBook
from tools.demo_voice.codec.graph import FLOAT, INT32, Graph
from tools.demo_voice.codec.network import MEL_BINS, Residual, TokenizerNetwork


def write_tokenizer(network: TokenizerNetwork, book: CodeBook, path: Path) -> None:
    """`feats` (1, 128, frames) float32 and `feats_length` (1,) int32 to `indices` (1, tokens) int32."""
    graph = Graph()
    mel = graph.input("feats", FLOAT, (1, MEL_BINS, "frames"))
    graph.input("feats_length", INT32, (1,))
    indices = _codes(graph, book, _logits(graph, network, mel))
    graph.save(path, graph.node("Cast", indices, to=INT32), "indices", INT32, (1, "tokens"))


def _logits(graph: Graph, network: TokenizerNetwork, mel: str) -> str:
    """(T, phones + 1 + levels)."""
    x = graph.node("Relu", graph.conv(network.first, mel))
    x = graph.conv(network.second, x)
    for index, block in enumerate(network.blocks):
        assert isinstance(block, Residual)
        hidden = graph.node("Relu", graph.conv(block.wide, graph.node("Relu", x)))
        x = graph.node("Add", x, graph.conv(block.narrow, hidden))
        if index == 0:
            mean = graph.node("ReduceMean", x, axes=[2], keepdims=0)
            added = graph.node("Relu", graph.linear(network.mean, mean))
            x = graph.node("Add", x, graph.node("Unsqueeze", added, graph.constant(np.array([2]))))
    rows = graph.node("Transpose", graph.node("Relu", x), perm=[0, 2, 1])
    return graph.node("Squeeze", graph.linear(_plain(network.head), rows), graph.constant(np.array([0])))


def _plain(module: nn.Module) -> nn.Linear:
    assert isinstance(module, nn.Linear)
    return module


def _codes(graph: Graph, book: CodeBook, logits: str) -> str:
    """The arithmetic of `CodeBook.codes`, (1, T) int64, with the pitch levels of a run averaged over it."""
    count = len(book.phones)

    def part(first: int, last: int) -> str:
        bounds = (np.array([first]), np.array([last]), np.array([1]))
        return graph.node("Slice", logits, *(graph.constant(bound) for bound in bounds))

    def number(value: int) -> str:
        return graph.constant(np.array(value, np.int64))

    phone = graph.node("ArgMax", part(0, count), axis=1, keepdims=0)
    length = graph.node("Shape", phone)
    time = graph.node("Range", number(0), graph.node("Squeeze", length), number(1))
    # The phone of the token before; none before the first, which is thereby an onset.
    earlier = graph.node("Concat", graph.constant(np.array([-1])), phone, axis=0)
    ends = (graph.constant(np.array([0])), graph.constant(np.array([-1])), graph.constant(np.array([0])))
    changed = graph.node("Not", graph.node("Equal", phone, graph.node("Slice", earlier, *ends)))
    onset = graph.node("Squeeze", part(count, count + 1), graph.constant(np.array([1])))
    start = graph.node("Or", changed, graph.node("Greater", onset, graph.constant(np.array(0.0, np.float32))))

    column = graph.node("Unsqueeze", time, graph.constant(np.array([1])))
    row = graph.node("Unsqueeze", time, graph.constant(np.array([0])))
    past = graph.node("And", graph.node("LessOrEqual", row, column), graph.node("Unsqueeze", start, _zero(graph)))
    first = graph.node("ReduceMax", graph.node("Where", past, row, number(0)), axes=[1], keepdims=0)

    def of_phone(values: tuple[int, ...]) -> str:
        return graph.node("Gather", graph.constant(np.array(values, np.int64)), phone)

    positions, cycle = of_phone(book.positions), of_phone(book.cycles)
    place = graph.node("Sub", time, first)
    over = graph.node("Mod", graph.node("Sub", place, positions), cycle)
    wrapped = graph.node("Add", graph.node("Sub", positions, cycle), over)
    place = graph.node("Where", graph.node("Less", place, positions), place, wrapped)

    same = graph.node("Equal", _spread(graph, phone, 1), _spread(graph, phone, 0))
    begun = graph.node("ReduceSum", _integer(graph, graph.node("And", past, same)), graph.constant(np.array([1])))
    begun = graph.node("Squeeze", begun, graph.constant(np.array([1])))
    turn = graph.node("Mod", graph.node("Sub", begun, number(1)), number(TURNS))

    run = graph.node("Equal", _spread(graph, first, 1), _spread(graph, first, 0))
    summed = graph.node("MatMul", graph.node("Cast", run, to=FLOAT), part(count + 1, count + 1 + LEVELS))
    level = graph.node("ArgMax", summed, axis=1, keepdims=0)

    pitched = of_phone(tuple(int(high) for high in book.pitched))
    levels = of_phone(tuple(LEVELS if high else 1 for high in book.pitched))
    inner = graph.node("Mul", graph.node("Add", graph.node("Mul", turn, positions), place), levels)
    code = graph.node("Add", graph.node("Add", of_phone(book.offsets), inner), graph.node("Mul", level, pitched))
    return graph.node("Unsqueeze", code, _zero(graph))


def _spread(graph: Graph, values: str, axis: int) -> str:
    """(T,) as a column (axis 1) or a row (axis 0)."""
    return graph.node("Unsqueeze", values, graph.constant(np.array([axis])))


def _zero(graph: Graph) -> str:
    return graph.constant(np.array([0]))


def _integer(graph: Graph, truth: str) -> str:
    return graph.node("Cast", truth, to=7)
