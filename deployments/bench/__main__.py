"""`python -m deployments.bench`: measure the service and its engines here."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from deployments.bench import memory
from deployments.bench.flow import FlowLoad, FlowReport, run_flow
from deployments.bench.lm import Load, Report, run
from deployments.bench.vocoder import VocoderLoad, VocoderReport, run_vocoder
from deployments.local import read_config


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    lm = commands.add_parser("lm", help="tokens per second of the language model, vLLM and torch side by side")
    lm.add_argument("--model", default="checkpoints/demo", help="checkpoint directory, or a model id to download")
    lm.add_argument("--engines", nargs="+", choices=("vllm", "torch"), default=["vllm", "torch"])
    lm.add_argument("--concurrent", nargs="+", type=int, default=[1, 4, 16, 64], help="utterances at once")
    lm.add_argument("--tokens", type=int, default=100, help="speech tokens of one utterance (25 a second)")
    lm.add_argument("--rounds", type=int, default=3, help="each load so often, engines in turns; the median counts")
    lm.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    lm.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    lm.add_argument("--threads", type=int, default=1, help="CPU threads of an engine")
    lm.add_argument("--json", type=Path, help="write the figures here too")
    long = commands.add_parser("memory", help="memory of all processes while one long text is spoken (Linux)")
    long.add_argument("--config", type=Path, default=Path("serve_config.yaml"), help="Serve config (YAML)")
    long.add_argument(
        "--seconds", type=float, default=3600, help="audio to stream; an hour is about 150,000 characters"
    )
    long.add_argument("--every", type=float, default=20, help="seconds of audio between two readings")
    long.add_argument("--port", type=int, default=8000)
    long.add_argument("--json", type=Path, help="write the readings here too")
    vocoder = commands.add_parser("vocoder", help="the vocoder's step loop, utterances together and in turn")
    vocoder.add_argument("--model", help="checkpoint directory or model id; default: official dims, random weights")
    vocoder.add_argument("--concurrent", nargs="+", type=int, default=[1, 2, 4, 8, 16], help="utterances at once")
    vocoder.add_argument("--frames", type=int, default=200, help="mel frames of one utterance (50 a second)")
    vocoder.add_argument("--repeats", type=int, default=3, help="the best of so many runs counts")
    vocoder.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    vocoder.add_argument("--threads", type=int, default=1, help="CPU threads")
    vocoder.add_argument("--json", type=Path, help="write the figures here too")
    flow = commands.add_parser("flow", help="the flow decoder's scheduler, utterances of a known voice together")
    flow.add_argument("--model", default="checkpoints/demo", help="checkpoint directory, or a model id to download")
    flow.add_argument("--concurrent", nargs="+", type=int, default=[1, 2, 4, 8, 16], help="utterances at once")
    flow.add_argument("--tokens", type=int, default=100, help="speech tokens of one utterance (25 a second)")
    flow.add_argument("--prompt-tokens", type=int, default=80, help="speech tokens of the voice's prompt")
    flow.add_argument("--repeats", type=int, default=3, help="the median of so many rounds counts")
    flow.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    flow.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    flow.add_argument("--threads", type=int, default=1, help="CPU threads")
    flow.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(argv)
    report: Report | memory.MemoryReport | VocoderReport | FlowReport
    if options.command == "lm":
        report = _lm(options)
    elif options.command == "memory":
        report = memory.run(read_config(options.config), options.seconds, options.every, options.port)
    elif options.command == "flow":
        report = _flow(options)
    else:
        report = _vocoder(options)
    print(report.render())
    if options.json:
        report.write(options.json)
    return 0


def _lm(options: argparse.Namespace) -> Report:
    load = Load(
        model=options.model,
        engines=tuple(options.engines),
        concurrent=tuple(options.concurrent),
        tokens=options.tokens,
        device=options.device,
        dtype=options.dtype,
        threads=options.threads,
        rounds=options.rounds,
    )
    return asyncio.run(run(load))


def _flow(options: argparse.Namespace) -> FlowReport:
    load = FlowLoad(
        model=options.model,
        concurrent=tuple(options.concurrent),
        tokens=options.tokens,
        prompt_tokens=options.prompt_tokens,
        device=options.device,
        dtype=options.dtype,
        threads=options.threads,
        repeats=options.repeats,
    )
    return run_flow(load)


def _vocoder(options: argparse.Namespace) -> VocoderReport:
    load = VocoderLoad(
        model=options.model,
        concurrent=tuple(options.concurrent),
        frames=options.frames,
        device=options.device,
        threads=options.threads,
        repeats=options.repeats,
    )
    return asyncio.run(run_vocoder(load))


if __name__ == "__main__":
    sys.exit(main())
