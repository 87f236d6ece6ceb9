"""What a RayService may say, as a JSON schema: KubeRay's own fields by its v1 types, pods by Kubernetes' schemas.

KubeRay's definition (a megabyte, most of it Kubernetes' pods repeated) is in no package; this names its fields, and
`kubernetes_validate` knows pods.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate

KUBERNETES = "1.31"
"""Oldest minor version that the manifests are checked against; fields they use are older and remain."""

_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}


def _closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_POD = {"type": "object", "required": ["spec"]}
_HEAD = _closed(
    ("rayStartParams", "template"),
    rayStartParams=_TEXTS,
    template=_POD,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    headService={"type": "object"},
    enableIngress={"type": "boolean"},
)
_WORKERS = _closed(
    ("groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"),
    groupName={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    numOfHosts=_COUNT,
    idleTimeoutSeconds=_COUNT,
    rayStartParams=_TEXTS,
    scaleStrategy={"type": "object"},
    template=_POD,
)
_AUTOSCALER = _closed(
    resources={"type": "object"},
    image={"type": "string"},
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    securityContext={"type": "object"},
    idleTimeoutSeconds=_COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    env={"type": "array"},
    envFrom={"type": "array"},
    volumeMounts={"type": "array"},
)
_CLUSTER = _closed(
    ("headGroupSpec",),
    rayVersion={"type": "string"},
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_AUTOSCALER,
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
    gcsFaultToleranceOptions={"type": "object"},
    headServiceAnnotations=_TEXTS,
    suspend={"type": "boolean"},
)
SCHEMA = _closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata={"type": "object", "required": ["name"]},
    spec=_closed(
        ("serveConfigV2", "rayClusterConfig"),
        serveConfigV2={"type": "string"},
        rayClusterConfig=_CLUSTER,
        serveService={"type": "object"},
        upgradeStrategy={"type": "object"},
        rayClusterDeletionDelaySeconds=_COUNT,
        excludeHeadPodFromServeSvc={"type": "boolean"},
    ),
)


def templates(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod templates by pool: `head`, and the worker groups."""
    cluster = service["spec"]["rayClusterConfig"]
    groups = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"], **groups}


def check(service: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError for what KubeRay or Kubernetes does not know."""
    jsonschema.validate(service, SCHEMA)
    for pool, template in templates(service).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pool, **template["metadata"]}}
        kubernetes_validate.validate({**pod, "spec": template["spec"]}, KUBERNETES, strict=True)
    options = service["spec"]["rayClusterConfig"]["autoscalerOptions"]
    fields = ("resources", "securityContext", "volumeMounts")
    container = {"name": "autoscaler", **{name: options[name] for name in fields if name in options}}
    sidecar = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "head"}, "spec": {"containers": [container]}}
    kubernetes_validate.validate(sidecar, KUBERNETES, strict=True)
