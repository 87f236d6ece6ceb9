"""The doors that tell about the service: health, voices, models."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import JSONResponse

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
                "stages": {name: asdict(info) if info else None for name, info in stages.items()},
            }
        )

    @router.get("/v1/audio/voices", summary="Voices that can be asked for by name")
    async def voices() -> dict[str, list[dict[str, object]]]:
        return {"voices": [asdict(info) for info in service.voices.infos()]}

    return router
