"""`python -m cosyvoice_core.bench`: measure the model core here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from cosyvoice_core.bench.full import run_full

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
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    measurement = run_full(
        options.front_end, device, _DTYPES[options.dtype], options.tokens, options.keep, options.seed
    )
    print(measurement.render())
    if options.json:
        measurement.write(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
