"""Arguments that all commands share which measure a running service."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtest.doors.registry import NEED_RAY
from loadtest.errors import ScenarioError
from loadtest.prompt_audio import PromptAudio
from loadtest.scenario import ClosedLoad, Scenario, TraceLoad
from loadtest.session import Target

_PROMPT = Path(__file__).resolve().parents[2] / "checkpoints" / "demo" / "prompts" / "demo_deep.wav"


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the service")
    parser.add_argument("--scenario", default="short", help="YAML file, or the name of a shipped one (default: short)")
    parser.add_argument("--seed", type=int, help="instead of the scenario's")
    parser.add_argument("--duration", type=float, help="measured seconds per level, instead of the scenario's")
    parser.add_argument("--prompt-audio", type=Path, default=_PROMPT, help="WAV that new voices are made from")
    parser.add_argument(
        "--gpus", type=int, help="GPUs the service computes on (default: this machine's, if it is here)"
    )
    parser.add_argument("--app", default="cosyvoice", help="Serve application, for handle calls")
    parser.add_argument("--ray", default="auto", help="address of its Ray cluster, for handle calls")
    parser.add_argument("--config", type=Path, help="the Serve config it was started with, to be named in the report")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def scenario_of(options: argparse.Namespace) -> Scenario:
    """Raises ScenarioError."""
    scenario = Scenario.from_yaml(options.scenario)
    changes: dict[str, Any] = {}
    if options.seed is not None:
        changes["seed"] = options.seed
    if options.duration is not None:
        changes["duration_s"] = options.duration
    return changed(scenario, changes)


def with_levels(scenario: Scenario, levels: list[float] | None) -> Scenario:
    """The scenario at other sizes of load: rates, users or speeds. Raises ScenarioError."""
    if not levels:
        return scenario
    load = scenario.load
    if isinstance(load, ClosedLoad):
        if any(level != int(level) for level in levels):
            raise ScenarioError("--levels: a closed loop has whole numbers of users")
        return changed(scenario, {"load": {**load.model_dump(), "users": [int(level) for level in levels]}})
    key = "speeds" if isinstance(load, TraceLoad) else "rates"
    return changed(scenario, {"load": {**load.model_dump(), key: levels}})


def changed(scenario: Scenario, changes: dict[str, Any]) -> Scenario:
    """Checked like a file. Raises ScenarioError."""
    try:
        return Scenario.model_validate({**scenario.model_dump(), **changes})
    except ValueError as error:
        raise ScenarioError(str(error)) from None


@contextmanager
def target_of(options: argparse.Namespace, scenario: Scenario) -> Iterator[Target]:
    """The service under test; inside the context this process is part of its Ray cluster if a door needs that."""
    uploads = any(share for kind, share in scenario.mix.voices.items() if kind != "known")
    prompt = PromptAudio.from_file(options.prompt_audio) if uploads else None
    target = Target(options.url, options.app, prompt, options.gpus, options.config)
    if not NEED_RAY & {name for name, share in scenario.mix.doors.items() if share > 0}:
        yield target
        return
    import ray

    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=options.ray, namespace="serve", log_to_driver=False, logging_level="warning")
        except ConnectionError as error:
            raise ScenarioError(f"--ray: handle calls need the service's Ray cluster ({error})") from None
    try:
        yield target
    finally:
        if ours:
            ray.shutdown()
