"""`python -m tools.demo_voice STAGE --work DIR --scale SCALE`: train the demo voice, stage by stage or all of it.

Every stage goes on where it was interrupted; a stage that is done costs only its figures. With `all` each stage runs
in a process of its own, so that none holds another's memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

_STAGES = ("data", "tokenizer", "speaker", "text", "lm", "flow", "vocoder", "pack", "evaluate")


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    options.work.mkdir(parents=True, exist_ok=True)
    # Read by the libraries as they are imported, hence before them. More threads than cores are much slower.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if options.stage == "all":
        return _all(options)
    # Not at the top: the number of threads must be known first.
    from tools.demo_voice.run import Run
    from tools.demo_voice.scale import SCALES, bounded

    scale = SCALES[options.scale]
    if options.minutes:
        scale = bounded(scale, options.minutes)
    judge = scale.judge
    judge = replace(judge, sentences=options.sentences or judge.sentences, seeds=options.seeds or judge.seeds)
    scale = replace(scale, judge=judge)
    figures = Run(options.work, scale, options.seed, options.language).stage(options.stage)
    for name, value in figures.items():
        print(f"{options.stage}: {name}: {value:.4g}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.demo_voice", description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=[*_STAGES, "all"])
    parser.add_argument("--work", type=Path, required=True, help="folder of the run; 5 GB at scale cpu, 14 at gpu")
    parser.add_argument("--scale", choices=["toy", "cpu", "gpu"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", default="en")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="for all training together, divided between the stages (0: no bound)"
    )
    parser.add_argument("--sentences", type=int, default=0, help="to judge by (0: as many as the scale says)")
    parser.add_argument("--seeds", type=int, default=0, help="each sentence is judged with (0: as the scale says)")
    parser.add_argument("--threads", type=int, default=1, help="of the processor, for each stage (default: 1)")
    return parser


def _all(options: argparse.Namespace) -> int:
    for stage in _STAGES:
        print(f"== {stage}", flush=True)
        command = [sys.executable, "-m", "tools.demo_voice", stage, "--work", str(options.work)]
        command += ["--scale", options.scale, "--seed", str(options.seed), "--language", options.language]
        command += ["--threads", str(options.threads), "--minutes", str(options.minutes)]
        command += ["--sentences", str(options.sentences), "--seeds", str(options.seeds)]
        status = subprocess.run(command, check=False).returncode
        if status:
            print(f"stage {stage} ended with status {status}; the same command goes on from there", file=sys.stderr)
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
