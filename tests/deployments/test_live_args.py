"""What a running replica takes over from its `user_config`, and what it refuses without harm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cosyvoice_core.flow.scheduler import SchedulerLimits
from deployments.args import AppArgs
from deployments.live_args import CHANGEABLE, LiveArgs, changed, check_user_configs
from deployments.local import DeployError, read_config, redeploy
from tests.flow.test_scheduler import scheduler

DEPLOYED = AppArgs.model_validate({"playback": {"pause_s": 1.0, "max_replays": 7}, "lexicon": {"Ray": "ray"}})


def test_what_is_left_out_stays_as_deployed() -> None:
    live = LiveArgs("Ingress", DEPLOYED)
    live.take({"playback": {"pause_s": 2.0}})
    assert live.args.playback == DEPLOYED.playback.model_copy(update={"pause_s": 2.0})
    live.take({"limits": {"max_text_chars": 5}})
    assert (live.args.playback, live.args.limits.max_text_chars) == (DEPLOYED.playback, 5)
    live.take({})
    assert live.args == DEPLOYED


def test_a_lexicon_is_exchanged_as_a_whole() -> None:
    assert changed("Ingress", DEPLOYED, {"lexicon": {"Serve": "surf"}}).lexicon == {"Serve": "surf"}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"playback": {"pause_s": -1}}, "playback.pause_s"),
        ({"playback": {"pauses": 1}}, "playback.pauses"),
        ({"playback": {"pause_s": 1}, "model": "another"}, "model cannot be changed"),
        ({"limits": {"max_body_bytes": 5000}}, "limits.max_body_bytes cannot be changed"),
        ({"playback": 3}, "playback"),
        ({"lexicon": {"a": 1}}, "lexicon"),
        (["playback"], "expected a mapping"),
    ],
)
def test_a_wrong_config_is_refused_as_a_whole_and_told(config: object, told: str) -> None:
    live, applied = LiveArgs("Ingress", DEPLOYED), list[AppArgs]()
    live.take({"playback": {"pause_s": 2.0}}, applied.append)
    before = live.args
    live.take(config, applied.append)
    assert told in live.problem
    assert live.args is before
    assert len(applied) == 1
    live.take({}, applied.append)
    assert live.problem == ""


def test_what_a_stage_cannot_do_is_refused_too() -> None:
    """Steps recorded for so many streams cannot take more."""
    on = scheduler(9, batch=3, slots=3)
    live = LiveArgs("FlowDecoder", AppArgs())
    live.take({"flow": {"max_batch": 4}}, lambda args: on.set_limits(args.flow.limits()))
    assert "at most 3" in live.problem
    assert live.args == AppArgs()
    on.set_limits(SchedulerLimits(batch=2))


@pytest.mark.parametrize("deployment", CHANGEABLE)
def test_names_that_may_change_exist(deployment: str) -> None:
    known = AppArgs().model_dump()
    for name in CHANGEABLE[deployment]:
        value: object = known
        for part in name.split("."):
            assert isinstance(value, Mapping)
            value = value[part]


@pytest.mark.parametrize("file", ["serve_config.yaml", "config/gpu.yaml"])
def test_a_wrong_user_config_is_not_deployed(file: str) -> None:
    config = read_config(Path(__file__).parents[2] / file)
    application = config["applications"][0]
    check_user_configs(application)
    application["deployments"][0]["user_config"] = {"flow": {"max_batch": 2}}
    with pytest.raises(DeployError, match=r"flow.max_batch cannot be changed in a running Ingress"):
        redeploy(config)
