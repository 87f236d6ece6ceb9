"""Manifests that Kubernetes and KubeRay accept, that agree with the Serve config they carry, and close what must be."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from tests.config.files import KUBERNETES, ROOT, application
from tests.config.rayservice import KUBERNETES as VERSION
from tests.config.rayservice import check, templates
from tools.kubernetes import ManifestError, filled, main

OVERLAYS = {"cpu": "cpu_cluster", "gpu": "heterogeneous"}
PLAIN = sorted(path for path in KUBERNETES.rglob("*.yaml") if path.stem not in ("rayservice", "kustomization"))
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def service_of(overlay: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((KUBERNETES / overlay / "rayservice.yaml").read_text())
    return found


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def objects(overlay: str) -> list[dict[str, Any]]:
    """What an overlay deploys, read as kustomize would: its own files and those of its bases."""
    found, folders = [], [KUBERNETES / overlay]
    while folders:
        folder = folders.pop()
        for resource in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
            path = (folder / resource).resolve()
            if path.is_dir():
                folders.append(path)
            else:
                found += documents(path)
    return found


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_kubernetes_accepts_plain_manifests(path: Path) -> None:
    found = documents(path)
    assert found
    for manifest in found:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


@every_overlay
def test_kuberay_and_kubernetes_accept_the_service(overlay: str) -> None:
    check(service_of(overlay))


def worker(service: dict[str, Any]) -> dict[str, Any]:
    group: dict[str, Any] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    return group


def container(service: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = worker(service)["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    "spoil",
    [
        lambda service: worker(service).update(maxReplica=3),
        lambda service: worker(service).update(minReplicas="two"),
        lambda service: service["spec"].update(serveConfig="x"),
        lambda service: service["spec"]["rayClusterConfig"]["autoscalerOptions"].update(upscalingMode="Fast"),
        lambda service: worker(service)["rayStartParams"].update({"num-cpus": 1}),
        lambda service: container(service).update(livenesProbe={}),
        lambda service: container(service)["resources"].update(limit={}),
        lambda service: worker(service)["template"]["spec"].update(terminationGracePeriodSeconds="long"),
    ],
)
def test_what_they_do_not_know_is_found(spoil: Callable[[dict[str, Any]], None]) -> None:
    service = copy.deepcopy(service_of("gpu"))
    spoil(service)
    with pytest.raises(jsonschema.ValidationError):
        check(service)


@pytest.mark.parametrize("path", [KUBERNETES / overlay / "rayservice.yaml" for overlay in OVERLAYS], ids=list(OVERLAYS))
def test_the_service_carries_the_serve_config_of_the_repository(path: Path) -> None:
    carried = yaml.safe_load(path.read_text())["spec"]["serveConfigV2"]
    assert carried == (ROOT / "config" / f"{OVERLAYS[path.parent.name]}.yaml").read_text()
    ServeDeploySchema.model_validate(yaml.safe_load(carried))


def test_manifests_are_as_the_command_makes_them() -> None:
    assert main(["--check"]) == 0


def test_a_manifest_that_is_behind_is_found_and_refreshed(tmp_path: Path) -> None:
    behind = tmp_path / "rayservice.yaml"
    text = (KUBERNETES / "cpu" / "rayservice.yaml").read_text()
    behind.write_text(text.replace("max_queued_requests: 128", "max_queued_requests: 1"))
    assert main(["--check", str(behind)]) == 1
    assert "max_queued_requests: 1\n" in behind.read_text()
    assert main([str(behind)]) == 0
    assert behind.read_text() == text


@pytest.mark.parametrize("text", ["spec: {}\n", "  serveConfigV2: |  # config/none.yaml\n"])
def test_a_manifest_without_a_serve_config_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        filled(text)


@every_overlay
def test_kustomizations_name_files_that_exist_and_leave_none_out(overlay: str) -> None:
    named = set()
    for folder in (KUBERNETES / overlay, KUBERNETES / "base"):
        resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        named |= {(folder / resource).resolve() for resource in resources}
        assert {path for path in folder.glob("*.yaml") if path.stem != "kustomization"} <= named
    assert all(path.exists() for path in named)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@every_overlay
def test_kustomize_builds_it(overlay: str) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / overlay)], capture_output=True, text=True, check=True
    ).stdout
    found = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in yaml.safe_load_all(built)}
    assert found == {(manifest["kind"], manifest["metadata"]["name"]) for manifest in objects(overlay)}
    assert {manifest["metadata"]["namespace"] for manifest in yaml.safe_load_all(built)} == {"cosyvoice"}


@every_overlay
def test_pods_offer_what_replicas_ask_for(overlay: str) -> None:
    """Each deployment finds a worker group whose pods hold a replica: card, cores, pool; and pods enough."""
    groups = service_of(overlay)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    for deployment in application(ROOT / "config" / f"{OVERLAYS[overlay]}.yaml")["deployments"]:
        options, bounds = deployment["ray_actor_options"], deployment["autoscaling_config"]
        fitting = [group for group in groups if holds(group, options)]
        assert fitting, deployment["name"]
        if deployment.get("max_replicas_per_node") == 1:
            assert sum(group["minReplicas"] for group in fitting) >= bounds["min_replicas"]
        if options.get("num_gpus"):
            # And one more for an update that starts the new replica first.
            per_pod = deployment.get("max_replicas_per_node", int(1 / options["num_gpus"]))
            assert sum(group["maxReplicas"] for group in fitting) * per_pod > bounds["max_replicas"]


def holds(group: dict[str, Any], options: dict[str, Any]) -> bool:
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    pool = json.loads(json.loads(group["rayStartParams"].get("resources", '"{}"')))
    cards = int(limits.get("nvidia.com/gpu", 0))
    return (
        options["num_cpus"] <= int(limits["cpu"])
        and options.get("num_gpus", 0) <= cards
        and set(options.get("resources", {})) <= set(pool)
        and bool(options.get("num_gpus")) == bool(cards)
    )


@every_overlay
def test_pods_wait_for_what_their_replicas_drain(overlay: str) -> None:
    service = service_of(overlay)
    deployments = application(ROOT / "config" / f"{OVERLAYS[overlay]}.yaml")["deployments"]
    for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
        deadline = int(command.partition("--deadline-remaining-seconds ")[2].split()[0])
        drains = [d["graceful_shutdown_timeout_s"] for d in deployments if holds(group, d["ray_actor_options"])]
        # Serve stops a replica when its drain is all that is left: before that its replacement must have started.
        assert max(drains) + 120 <= deadline < spec["terminationGracePeriodSeconds"]


@every_overlay
def test_probes_ask_the_doors_that_exist(overlay: str) -> None:
    front = [template for template in templates(service_of(overlay)).values() if "startupProbe" in first(template)]
    assert len(front) == 1
    probes = {name: first(front[0])[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: probe["httpGet"]["path"] for name, probe in probes.items()} == {
        "startupProbe": "/health",
        "livenessProbe": "/health",
        "readinessProbe": "/ready",
    }
    idle = service_of(overlay)["spec"]["rayClusterConfig"]["autoscalerOptions"]["idleTimeoutSeconds"]
    liveness = probes["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] > idle


def first(template: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = template["spec"]["containers"][0]
    return found


@every_overlay
def test_nothing_runs_as_root_or_writes_to_its_image(overlay: str) -> None:
    for pool, template in templates(service_of(overlay)).items():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"], pool
        assert spec["securityContext"]["runAsUser"] > 0
        security = first(template)["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"]["drop"] == ["ALL"]
        mounted = {mount["mountPath"]: mount["name"] for mount in first(template)["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert {"/tmp", "/dev/shm"} <= {path for path, name in mounted.items() if "emptyDir" in volumes[name]}
        assert set(mounted.values()) == set(volumes)


@every_overlay
def test_caches_lie_where_one_may_write(overlay: str) -> None:
    for template in templates(service_of(overlay)).values():
        writable = [m["mountPath"] for m in first(template)["volumeMounts"] if not m.get("readOnly")]
        for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "COSYVOICE_VOICES"):
            (value,) = (variable["value"] for variable in first(template)["env"] if variable["name"] == name)
            assert any(f"{value}/".startswith(f"{path}/") for path in writable), name


@every_overlay
def test_the_shared_volume_and_the_policy_are_deployed_with_it(overlay: str) -> None:
    found = objects(overlay)
    claims = {m["metadata"]["name"]: m for m in found if m["kind"] == "PersistentVolumeClaim"}
    for template in templates(service_of(overlay)).values():
        used = [
            v["persistentVolumeClaim"]["claimName"] for v in template["spec"]["volumes"] if "persistentVolumeClaim" in v
        ]
        assert used
        assert all(claims[name]["spec"]["accessModes"] == ["ReadWriteMany"] for name in used)
    (policy,) = (manifest for manifest in found if manifest["kind"] == "NetworkPolicy")
    selector = policy["spec"]["podSelector"]["matchLabels"].items()
    for template in templates(service_of(overlay)).values():
        assert selector <= template["metadata"]["labels"].items()


def test_from_anywhere_only_the_service_s_port_is_reached() -> None:
    (policy,) = documents(KUBERNETES / "base" / "network.yaml")
    rules = policy["spec"]["ingress"]
    anywhere = [rule for rule in rules if not rule.get("from")]
    assert [[port["port"] for port in rule["ports"]] for rule in anywhere] == [[8000]]
    whole_namespaces = [peer for rule in rules for peer in rule.get("from", []) if "podSelector" not in peer]
    assert [peer["namespaceSelector"]["matchLabels"] for peer in whole_namespaces] == [
        {"kubernetes.io/metadata.name": "monitoring"}
    ]
    to_dashboard = [rule for rule in rules if 8265 in [port["port"] for port in rule.get("ports", [])]]
    assert [peer["podSelector"]["matchLabels"] for rule in to_dashboard for peer in rule["from"]] == [
        {"app.kubernetes.io/name": "kuberay-operator"}
    ]


@every_overlay
def test_each_pool_keeps_a_pod_when_nodes_are_emptied(overlay: str) -> None:
    budgets = [manifest["spec"] for manifest in objects(overlay) if manifest["kind"] == "PodDisruptionBudget"]
    labels = [template["metadata"]["labels"] for template in templates(service_of(overlay)).values()]
    assert len(budgets) == len(labels)
    for label in labels:
        (budget,) = (spec for spec in budgets if spec["selector"]["matchLabels"].items() <= label.items())
        # Kubernetes knows no number of pods for a RayCluster, so that only this form works.
        assert set(budget) == {"selector", "minAvailable"}
        assert isinstance(budget["minAvailable"], int)


@every_overlay
def test_serve_counts_every_second_and_asks_before_it_sends_on_every_node(overlay: str) -> None:
    for template in templates(service_of(overlay)).values():
        environment = {variable["name"]: variable.get("value") for variable in first(template)["env"]}
        assert environment["RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] == "1"
        assert environment["RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S"] == "0"
