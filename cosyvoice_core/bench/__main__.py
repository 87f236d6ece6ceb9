"""`python -m cosyvoice_core.bench`: measure the model core here."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from cosyvoice_core.bench.acoustic import run_acoustic
from cosyvoice_core.bench.acoustic_figures import AcousticPlan, table
from cosyvoice_core.bench.full import run_full
from cosyvoice_core.bench.measure import Machine, provenance
from cosyvoice_core.bench.plot import draw
from cosyvoice_core.bench.precision import Material, precision_table, run_precision
from cosyvoice_core.bench.shapes import cost_record, shapes_table, step_costs
from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.random import TINY
from cosyvoice_core.config import FlowConfig, ModelConfig
from cosyvoice_core.device import usable_device
from cosyvoice_core.errors import InputError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cosyvoice_core.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    full = commands.add_parser("full", help="one sentence end to end at official dims with random weights")
    full.add_argument("--device", default="cpu")
    full.add_argument("--dtype", choices=_DTYPES, default="float32", help="of language model and flow")
    full.add_argument("--tokens", type=int, default=100, help="length of the sentence in speech tokens (25 a second)")
    full.add_argument(
        "--front-end", type=Path, default=Path("checkpoints/demo"), help="checkpoint with the ONNX models"
    )
    full.add_argument("--keep", type=Path, help="folder to leave the 3 GB checkpoint in, and to reuse it from")
    full.add_argument("--seed", type=int, default=0)
    full.add_argument("--json", type=Path, help="write the figures here too")
    acoustic = commands.add_parser("acoustic", help="flow and vocoder: growth, work, batches, caches")
    acoustic.add_argument("--device", default="cpu")
    acoustic.add_argument("--dtype", choices=_DTYPES, default="float32", help="of the flow")
    acoustic.add_argument("--quick", action="store_true", help="smaller dims, under a minute on two cores")
    acoustic.add_argument("--cache-gib", type=float, help="memory for caches (default 8, with --quick 1)")
    acoustic.add_argument("--seconds", type=int, default=30, help="length of the growing stream")
    acoustic.add_argument(
        "--fixed-shapes", action="store_true", help="streams together step in fixed shapes, on CUDA as graphs"
    )
    acoustic.add_argument("--json", type=Path, help="write the figures here too")
    acoustic.add_argument("--plot", type=Path, help="draw them here (SVG or PNG; needs matplotlib)")
    precision = commands.add_parser("precision", help="flow and vocoder in narrower numbers against float32")
    precision.add_argument("--device", default="cpu")
    precision.add_argument("--model", type=Path, default=Path("checkpoints/demo"), help="checkpoint with saved voices")
    precision.add_argument("--full", action="store_true", help="also official dims with random weights")
    precision.add_argument("--quick", action="store_true", help="a tiny random model alone, some seconds")
    precision.add_argument("--json", type=Path, help="write the figures here too")
    shapes = commands.add_parser("shapes", help="steps of fixed shape by count: operations and padding; runs nothing")
    shapes.add_argument("--streams", type=int, default=16, help="up to so many in one step")
    shapes.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(argv)
    if options.command == "shapes":
        return _shapes(options)
    try:
        device = usable_device(options.device)
    except InputError as error:
        parser.error(str(error))
    if options.command == "precision":
        return _precision(options, device)
    dtype = _DTYPES[options.dtype]
    if options.command == "acoustic":
        return _acoustic(options, device, dtype)
    measurement = run_full(options.front_end, device, dtype, options.tokens, options.keep, options.seed)
    print(measurement.render())
    if options.json:
        measurement.write(options.json)
    return 0


def _acoustic(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> int:
    plan = AcousticPlan.quick() if options.quick else AcousticPlan()
    plan = replace(plan, grow_s=options.seconds, fixed_shapes=options.fixed_shapes)
    if options.cache_gib is not None:
        plan = replace(plan, cache_bytes=int(options.cache_gib * 2**30))
    with tqdm(bar_format="{desc} {elapsed}", leave=False) as bar:
        result = run_acoustic(plan, device, dtype, bar.set_description)
    machine = _print_machine(device)
    print("\n".join(table(result)))
    if options.json:
        options.json.write_text(json.dumps(provenance(device) | result.record(), indent=1) + "\n")
    if options.plot:
        draw(result, options.plot, f"{machine.processor}, {machine.accelerator} accelerator")
    return 0


def _precision(options: argparse.Namespace, device: torch.device) -> int:
    if options.quick:
        materials = [Material.random("tiny, random", TINY, seed=0, prompt=30, tokens=40)]
    else:
        materials = [Material.of_checkpoint(CheckpointDirectory(options.model))]
        if options.full:
            materials.append(Material.random("full, random", ModelConfig(), seed=0, prompt=50, tokens=75))
    with tqdm(bar_format="{desc} {elapsed}", leave=False) as bar:
        results = run_precision(materials, [torch.bfloat16, torch.float16], device, bar.set_description)
    _print_machine(device)
    print("\n".join(precision_table(results)))
    if options.json:
        record = provenance(device) | {"differences": [result.record() for result in results]}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _shapes(options: argparse.Namespace) -> int:
    costs = step_costs(FlowConfig(), options.streams, seed=0)
    print("\n".join(shapes_table(costs)))
    if options.json:
        record = provenance(torch.device("cpu")) | {"steps": cost_record(costs)}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _print_machine(device: torch.device) -> Machine:
    machine = Machine.here(device)
    print(f"{machine.processor}, {machine.accelerator} accelerator, torch {machine.torch}, {machine.threads} threads\n")
    return machine


if __name__ == "__main__":
    sys.exit(main())
