"""Bytes on a card as they are planned, against what is really allocated; and every GPU config within its cards."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cosyvoice_core.bench.counts import FlowCounts
from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.layout import TIED_HEAD
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import ModelConfig
from cosyvoice_core.flow import FlowModel
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.memory import page_bytes
from cosyvoice_core.vocoder import Vocoder
from deployments.__main__ import main
from deployments.args import AppArgs
from deployments.sizing import RESERVE_BYTES, flow_model, kv_bytes, stage_bytes
from deployments.sizing_report import heaviest, problems, report
from tests.config.files import ROOT, application

DEMO = ROOT / "checkpoints" / "demo"
CONFIG = ROOT / "config"
CARDS = {"gpu": 22.0, "four_gpus": 39.0}
"""GiB that programs can use, as the configs' comments say."""


def loaded_bytes(module: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def test_weights_are_those_that_are_loaded() -> None:
    config, files = read_model_config(DEMO), CheckpointDirectory(DEMO)
    planned = stage_bytes(AppArgs(), config)
    flow = FlowModel.from_state(read_state(files.flow), config.flow)
    assert planned["FlowDecoder"].weights == loaded_bytes(flow.network)
    vocoder = Vocoder.from_state(read_state(files.vocoder), config.vocoder, "hift.pt")
    assert planned["Vocoder"].weights == loaded_bytes(vocoder)
    lm = {name: tensor for name, tensor in read_state(files.llm).items() if name != TIED_HEAD}
    assert planned["SpeechLM"].weights == 4 * sum(tensor.numel() for tensor in lm.values())


def test_figures_in_the_comments_of_configs_are_the_planned_ones() -> None:
    config = ModelConfig()
    flow = flow_model(config, AppArgs().flow)
    assert kv_bytes(config.lm, torch.bfloat16) == 12 * 1024
    full, compact = (page_bytes(flow, form) / 1e6 for form in (CacheForm.KEYS_VALUES, CacheForm.INPUTS))
    for path in CONFIG.glob("*.yaml"):
        for said in re.findall(r"(\d+) MB \(compact\) or (\d+) MB \(full\)", path.read_text()):
            assert said == (f"{compact:.0f}", f"{full:.0f}")
        for gigabytes, seconds in re.findall(r"(\d+) GB are (\d+) s in the compact form", path.read_text()):
            assert int(seconds) == int(int(gigabytes) * 1e9 / (compact * 1e6))


@pytest.mark.parametrize("name", ["gpu", "four_gpus", "heterogeneous"])
def test_the_table_in_the_comment_is_the_planned_one(name: str) -> None:
    path = CONFIG / f"{name}.yaml"
    sizes = stage_bytes(AppArgs.model_validate(application(path)["args"]), ModelConfig())
    rows = re.findall(
        r"^# +(?:(\d) )?(SpeechLM|FlowDecoder|Vocoder)s? +([\d.]+) +([\d.]+|-) +([\d.]+|-) +([\d.]+) +([\d.]+)",
        path.read_text(),
        re.MULTILINE,
    )
    assert [row[1] for row in rows] == ["SpeechLM", "FlowDecoder", "Vocoder"]
    for count, stage, *said in rows:
        size = sizes[stage]
        row = (size.weights, size.planned, size.grows, RESERVE_BYTES, size.total)
        for value, written in zip(row, said, strict=True):
            assert abs(int(count or 1) * value / 2**30 - float(written.replace("-", "0"))) <= 0.055, (stage, written)


@pytest.mark.parametrize("name", CARDS)
def test_whoever_may_share_a_card_fits_it(name: str) -> None:
    cards = {"gpu": 1, "four_gpus": 4}[name]
    assert problems(application(CONFIG / f"{name}.yaml"), CARDS[name], cards) == []


def test_each_pool_of_the_heterogeneous_config_fits_its_cards() -> None:
    app = application(CONFIG / "heterogeneous.yaml")
    small, large = problems(app, 22.0, None), problems(app, 39.0, None)
    assert [line.partition(":")[0] for line in small] == ["acoustic"]
    assert large == []


@pytest.mark.parametrize(
    ("card", "usable", "cache", "fraction"),
    re.findall(r"^# +(\d+) GB +(\d+) +([\d_]+) +([\d.]+)$", (CONFIG / "gpu.yaml").read_text(), re.MULTILINE),
)
def test_the_one_gpu_config_fits_other_cards_as_its_comment_says(
    card: str, usable: str, cache: str, fraction: str
) -> None:
    app = changed(CONFIG / "gpu.yaml", int(cache.replace("_", "")), float(fraction))
    assert problems(app, float(usable), 1) == [], card
    assert problems(app, 0.7 * float(usable), 1) != [], card


def test_the_comment_knows_other_cards() -> None:
    assert re.findall(r"^# +(\d+) GB +\d+ ", (CONFIG / "gpu.yaml").read_text(), re.MULTILINE) == [
        "16",
        "24",
        "40",
        "80",
    ]


def changed(path: Path, cache_bytes: int, fraction: float) -> dict[str, Any]:
    app = copy.deepcopy(application(path))
    app["args"]["flow"] |= {"cache_bytes": cache_bytes, "prefix_cache_bytes": 0}
    app["args"]["lm"]["vllm"]["gpu_memory_utilization"] = fraction
    return app


def test_too_much_for_a_card_is_found_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert any("may share a card" in line for line in problems(application(CONFIG / "gpu.yaml"), 16.0, None))
    engine = problems(changed(CONFIG / "gpu.yaml", 12_000_000_000, 0.9), 22.0, None)
    assert any("free beside" in line for line in engine)
    assert any("more than its" in line for line in problems(changed(CONFIG / "gpu.yaml", 0, 0.01), 22.0, None))
    assert main(["sizing", str(CONFIG / "gpu.yaml"), "--card-gib", "10"]) == 1
    printed = capsys.readouterr()
    assert "FlowDecoder" in printed.out
    assert "GiB" in printed.err
    assert main(["sizing", str(CONFIG / "cpu_cluster.yaml")]) == 0
    assert main(["sizing", str(CONFIG / "missing.yaml")]) == 1


def test_the_fullest_card_counts_every_replica() -> None:
    sizes = stage_bytes(AppArgs(), ModelConfig())
    most, mix = heaviest([{"Vocoder": 1}, {"Vocoder": 3}], sizes)
    assert (most, mix) == (3 * sizes["Vocoder"].total, {"Vocoder": 3})


def test_the_report_has_a_line_for_each_stage_on_cards() -> None:
    lines = list(report(application(CONFIG / "heterogeneous.yaml")))
    assert [line.split()[0] for line in lines[1:4]] == ["SpeechLM", "FlowDecoder", "Vocoder"]
    assert len([line for line in lines if line.startswith("fullest card")]) == 2


def test_the_page_s_arithmetic_is_the_code_s() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rate = ModelConfig().frame_rate
    counts = [FlowCounts.of(flow_model(ModelConfig(), AppArgs().flow), form) for form in CacheForm]
    assert counts[0].per_frame == counts[1].per_frame
    assert f"{counts[0].per_frame / 1e9:.2f} GFLOP a frame" in page
    # GFLOP for a second of sound behind 10 s and 20 s, in both forms of caches.
    seconds = [[rate * (c.per_frame + c.per_pair * s * rate) / 1e9 for c in counts] for s in (10, 20)]
    assert f"= {seconds[0][0]:.0f} GFLOP a second with full caches and {seconds[0][1]:.0f} with" in re.sub(
        r"\s+", " ", page
    )
    assert f"at 20 s {seconds[1][0]:.0f} and {seconds[1][1]:.0f}." in page
    assert (
        f"{int(10_000 / seconds[0][1])} streams at 10 s in compact form, {int(10_000 / seconds[0][0])} in full"
        in re.sub(r"\s+", " ", page)
    )
