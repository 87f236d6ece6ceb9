"""The bench of fixed shapes counts: operations that do not grow with streams, arithmetic that padding adds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cosyvoice_core.bench.acoustic_figures import AcousticPlan
from cosyvoice_core.bench.shapes import padded_share, shapes_table, step_costs
from cosyvoice_core.flow.model import FlowModel, FlowNetwork

CONFIG = replace(AcousticPlan.quick().flow, mid_stages=2)


def test_operations_of_fixed_shapes_hardly_depend_on_the_number_of_streams() -> None:
    one, two, four = step_costs(CONFIG, 4, seed=0)
    assert (one.streams, two.streams, four.streams) == (1, 2, 4)
    # As they are, each stream's attention comes on top: at least product, two stores and a copy in four layers.
    assert two.asked - one.asked >= 4 * 4
    assert four.asked - two.asked == pytest.approx(2 * (two.asked - one.asked), rel=0.1)
    # In a graph there is nothing more to ask for; around it each stream's tails are handed over.
    inside = {cost.asked_fixed - cost.asked_around for cost in (one, two, four)}
    assert len(inside) == 1
    assert four.asked_around - one.asked_around <= 2 * 3
    assert all(str(cost.asked) in "\n".join(shapes_table([one, two, four])) for cost in (one, two, four))


def test_padding_costs_more_the_more_streams_differ() -> None:
    with torch.device("meta"):
        network = FlowNetwork(CONFIG)
    model = FlowModel(network, CONFIG)
    shares = [padded_share(model, streams, 16, seed=0) for streams in (1, 4, 16)]
    assert 1 < shares[0] < shares[1] < shares[2] < 2
    # Three streams in four slots: a third more.
    assert padded_share(model, 3, 16, seed=0) > 1.25 * shares[0]
