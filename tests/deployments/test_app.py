"""What the application consists of, without running it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.serve._private.build_app import build_app

from deployments.app import build
from deployments.args import AppArgs, SecurityArgs
from deployments.ingress.deployment import Ingress
from deployments.ingress.keys import ENVIRONMENT, KeysError

STAGES = ["FlowDecoder", "Ingress", "SpeechLM", "Vocoder", "VoiceEncoder"]


def deployments_of(args: AppArgs) -> list[str]:
    built = build_app(build(args), name="cosyvoice")
    return sorted(deployment.name for deployment in built.deployments)


def test_quotas_are_counted_where_there_are_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert deployments_of(AppArgs()) == STAGES
    keyed = AppArgs(security=SecurityArgs(keys_file=str(tmp_path / "keys.yaml")))
    assert deployments_of(keyed) == sorted([*STAGES, "Quotas"])
    monkeypatch.setenv(ENVIRONMENT, "{keys: []}")
    assert deployments_of(AppArgs()) == sorted([*STAGES, "Quotas"])


def test_keys_that_only_a_replica_knows_of_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the application was built nobody made a place to count: its quotas would be each replica's own."""
    monkeypatch.setenv(ENVIRONMENT, "{keys: []}")
    with pytest.raises(KeysError, match="on every node"):
        Ingress(AppArgs(), *[None] * 4)  # type: ignore[arg-type]
