"""The doors that tell about the service: health, voices, models."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from cosyvoice_core.errors import InputError
from deployments.ingress.service import SpeechService


def status_routes(service: SpeechService) -> APIRouter:
    """Routes that speak nothing."""
    router = APIRouter()

    @router.get("/health", summary="Is the service alive, and what does each stage run on")
    async def health() -> JSONResponse:
        stages = await service.stage_infos()
        ready = all(info is not None for info in stages.values())
        return JSONResponse(
            {
                "status": "ok" if ready else "degraded",
                "model": service.args.model_name,
                "sample_rate": service.sample_rate,
                "config_problem": service.config_problem,
                "stages": {name: asdict(info) if info else None for name, info in stages.items()},
            }
        )

    @router.get("/v1/models", summary="Models that can be asked for")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [_model(service.args.model_name)]}

    @router.get("/v1/models/{name:path}", summary="One model")
    async def model(name: str) -> dict[str, object]:
        if name != service.args.model_name:
            raise InputError("model", f"{name[:100]!r} is unknown", f"it is {service.args.model_name!r}")
        return _model(name)

    @router.get("/v1/audio/voices", summary="Voices that can be asked for by name")
    async def voices() -> dict[str, list[dict[str, object]]]:
        return {"voices": [asdict(info) for info in service.voices.infos()]}

    return router


def _model(name: str) -> dict[str, object]:
    """In OpenAI's shape; nobody knows when a checkpoint was created."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "cosyvoice"}
