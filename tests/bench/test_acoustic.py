"""The acoustic bench counts what is computed, and nothing hidden is computed beside it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cosyvoice_core.bench.__main__ import main
from cosyvoice_core.bench.acoustic import run_acoustic
from cosyvoice_core.bench.acoustic_figures import AcousticPlan, table
from cosyvoice_core.bench.counts import FlowCounts, official_stops
from cosyvoice_core.checkpoint.layout import flow_layout
from cosyvoice_core.checkpoint.random import TINY, random_state
from cosyvoice_core.config import FlowConfig
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.memory import FlowMemory, page_bytes
from cosyvoice_core.flow.model import FlowModel, FlowNetwork
from cosyvoice_core.flow.session import FlowSession
from cosyvoice_core.flow.stepper import FlowStepper

PLAN = AcousticPlan.quick()
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def attention_flops(query: tuple[int, ...], key: tuple[int, ...], *_: object, **__: object) -> int:
    """Of scores and sums; torch's counter knows the operators of GPUs only."""
    rows, heads, asking, width = query
    return 2 * 2 * rows * heads * asking * key[2] * width


@pytest.fixture(scope="module")
def model() -> FlowModel:
    return FlowModel.from_state(random_state(flow_layout(PLAN.flow), 0, "flow.pt"), PLAN.flow)


def test_counts_of_the_official_size() -> None:
    """docs/model.md: 2.66 GFLOP a frame with the encoder, 2.3 MFLOP for each frame that one attends to."""

    class Sizes:
        """Stands in for a loaded model of half a gigabyte: of it only the shapes of weights are read."""

        config = FlowConfig()
        with torch.device("meta"):
            network = FlowNetwork(config)

    counts = FlowCounts.of(Sizes())  # type: ignore[arg-type]
    assert counts.per_frame == pytest.approx(2.66e9, rel=0.02)
    assert counts.per_pair == pytest.approx(2.3e6, rel=0.01)


@pytest.mark.parametrize("form", CacheForm)
@pytest.mark.parametrize("before", [3, 24])
def test_a_chunk_does_what_is_counted_and_no_more(model: FlowModel, form: CacheForm, before: int) -> None:
    """By the operations that torch was asked for, not by time: after 3 s and after 24 s of audio."""
    stepper = FlowStepper(model, FlowMemory(model, 40 * page_bytes(model, form), form))
    session = FlowSession(model, torch.zeros(0, dtype=torch.long), torch.zeros(0, 80), torch.ones(192), stepper=stepper)
    # Another stream has been here: the first unconditional step is known.
    tokens = torch.arange(25 * before + 28)
    other = FlowSession(model, tokens[:0], torch.zeros(0, 80), torch.ones(192), stepper=stepper)
    other.push(tokens, last=False)
    other.close()
    session.push(tokens[: 25 * before + 3], last=False)
    with FlopCounterMode(display=False, custom_mapping={ATTENTION: attention_flops}) as counter:
        mel = session.push(tokens[25 * before + 3 :], last=False)
    assert mel.shape[1] == 50
    counted = FlowCounts.of(model, form).chunk(50, 50 * before)
    assert 0.8 <= counter.get_total_flops() / counted <= 1.05


def test_the_originals_hops_are_those_of_the_account_of_it() -> None:
    # docs/model.md, "Streaming": prefixes of 33, 83, 183, 283 tokens behind a prompt of 20, look-ahead of 3 included.
    assert official_stops(20, 300, 25, 3) == [50, 100, 200, 300, 320]
    assert official_stops(75, 20, 25, 3) == [95]


@pytest.mark.parametrize("fixed", [False, True])
def test_figures_hang_together(fixed: bool) -> None:
    plan = replace(
        PLAN,
        flow=TINY.flow,
        vocoder=TINY.vocoder,
        grow_s=8,
        work_s=(4, 8),
        batches=(1, 2),
        batch_s=1,
        fixed_shapes=fixed,
    )
    result = run_acoustic(plan, torch.device("cpu"), torch.float32, lambda _: None)
    summary = result.summary()
    assert summary["stream_vs_oneshot_max_abs"] <= 1e-4
    # By operations, which do not depend on the machine: recomputing costs more, the longer the more.
    ratios = [work.count_ratio for work in result.work]
    assert 1 < ratios[0] < ratios[1]
    assert [chunk.before for chunk in result.chunks] == list(range(150, 550, 50))
    assert {form.form: form.bytes_per_s for form in result.forms}[CacheForm.INPUTS] < result.forms[0].bytes_per_s
    lines = "\n".join(table(result))
    assert all(name in lines for name in summary)
    assert ("fixed shapes" in lines) is fixed
    json.dumps(result.record())


def test_a_wrong_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["acoustic", "--dtype", "float8"])
    assert "float32" in capsys.readouterr().err
