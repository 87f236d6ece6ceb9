"""Every Serve config is one that Serve, the application and the project's own promises accept."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from ray.serve._private.utils import DEFAULT
from ray.serve.schema import ServeDeploySchema

import deployments.app as app
from cosyvoice_core.config import ModelConfig
from cosyvoice_core.flow.noise import MAX_FRAMES
from deployments.args import AppArgs
from deployments.local import read_config
from deployments.placement import shares
from deployments.scaling_policy import ScaleByWork
from tests.config.files import ROOT, SERVE_CONFIGS, application

DEPLOYMENTS = {"Ingress", "VoiceEncoder", "SpeechLM", "FlowDecoder", "Vocoder"}
STAGES = ("SpeechLM", "FlowDecoder", "Vocoder")
LONGEST_S = MAX_FRAMES / ModelConfig().frame_rate
every_config = pytest.mark.parametrize("path", SERVE_CONFIGS, ids=lambda path: path.stem)
in_config = pytest.mark.parametrize(
    "path", [path for path in SERVE_CONFIGS if path.parent.name == "config"], ids=lambda path: path.stem
)


def test_the_configs_that_readers_are_sent_to_exist() -> None:
    assert {path.stem for path in SERVE_CONFIGS} >= {"serve_config", "gpu", "four_gpus", "heterogeneous", "cpu_cluster"}


@every_config
def test_serve_and_the_application_accept_it(path: Path) -> None:
    schema = ServeDeploySchema.model_validate(read_config(path))
    (declared,) = schema.applications
    AppArgs.model_validate(declared.args)
    assert declared.import_path == "deployments.app:build"
    assert inspect.signature(app.build).parameters["args"].annotation is AppArgs


@every_config
def test_it_names_each_deployment_of_the_application_once(path: Path) -> None:
    names = [deployment["name"] for deployment in application(path)["deployments"]]
    assert sorted(names) == sorted(DEPLOYMENTS)
    source = inspect.getsource(app.build)
    assert all(name in source for name in DEPLOYMENTS)


@every_config
def test_its_scaling_policy_takes_its_arguments(path: Path) -> None:
    policy = application(path).get("autoscaling_policy")
    if policy is None:
        bounds = [deployment["autoscaling_config"] for deployment in application(path)["deployments"]][2:]
        assert all(bound["min_replicas"] == bound["max_replicas"] for bound in bounds)
        return
    assert policy["policy_function"] == "deployments.scaling_policy:ScaleByWork"
    ScaleByWork(**policy["policy_kwargs"])


@in_config
def test_queues_are_bounded_and_drains_outlast_an_utterance(path: Path) -> None:
    schema = ServeDeploySchema.model_validate(read_config(path))
    for deployment in schema.applications[0].deployments:
        assert 0 < deployment.max_queued_requests <= 256, deployment.name
        assert deployment.max_surge_percent is not DEFAULT.VALUE, deployment.name
        if deployment.name in STAGES:
            assert deployment.graceful_shutdown_timeout_s > LONGEST_S, deployment.name
            assert deployment.health_check_period_s < deployment.health_check_timeout_s
        if deployment.name == "Ingress":
            assert deployment.graceful_shutdown_timeout_s > 2 * LONGEST_S


@in_config
def test_the_language_model_is_offered_what_it_decodes_together(path: Path) -> None:
    args = AppArgs.model_validate(application(path)["args"])
    options = {deployment["name"]: deployment for deployment in application(path)["deployments"]}
    assert options["SpeechLM"]["max_ongoing_requests"] == args.lm.max_sequences
    if args.lm.device == "cuda":
        assert max(args.lm.vllm.cudagraph_capture_sizes) == args.lm.max_sequences


@every_config
def test_stages_compute_where_their_replicas_are_placed(path: Path) -> None:
    args = AppArgs.model_validate(application(path)["args"])
    on_cards = {share.name for share in shares(application(path))}
    devices = {"SpeechLM": args.lm.device, "FlowDecoder": args.flow.device, "Vocoder": args.vocoder.device}
    assert {name for name, device in devices.items() if device == "cuda"} == on_cards


@every_config
def test_one_machine_listens_to_itself_and_clusters_say_that_they_do_not(path: Path) -> None:
    host = read_config(path)["http_options"]["host"]
    text = path.read_text()
    if path.stem in ("heterogeneous", "cpu_cluster"):
        assert host == "0.0.0.0"
        assert "ALL addresses" in text
        assert "config/kubernetes/base/network.yaml" in text
    else:
        assert host == "127.0.0.1"


@in_config
def test_it_says_what_was_run_and_what_was_not(path: Path) -> None:
    comment = path.read_text().partition("proxy_location")[0]
    assert "NOT run on" in comment or "Run:" in comment


def test_readme_and_operations_list_every_config() -> None:
    pages = {name: (ROOT / name).read_text() for name in ("README.md", "docs/operations.md")}
    for path in SERVE_CONFIGS:
        name = str(path.relative_to(ROOT))
        assert [page for page, text in pages.items() if name not in text] == []
