"""The doors that tell about the service: health, models."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from cosyvoice_core.errors import InputError
from deployments.ingress.service import SpeechService


def status_routes(service: SpeechService) -> APIRouter:
    """Routes that speak nothing."""
    router = APIRouter()

    @router.get("/health", summary="Does this replica answer; with ?stages=true, what each stage runs on")
    async def health(stages: bool = False) -> JSONResponse:
        answer: dict[str, object] = {
            "status": "ok",
            "model": service.args.model_name,
            "sample_rate": service.sample_rate,
        }
        if stages:
            answer["config_problem"] = service.config_problem
            infos = await service.stage_infos()
            if any(info is None for info in infos.values()):
                answer["status"] = "degraded"
            answer["stages"] = {name: asdict(info) if info else None for name, info in infos.items()}
        return JSONResponse(answer)

    @router.get("/ready", summary="Has every stage a replica that is warm", responses={503: {"description": "no"}})
    async def ready() -> JSONResponse:
        waiting_for = await service.stages_without_replica()
        status = "starting" if waiting_for else "ok"
        return JSONResponse(
            {"status": status, "waiting_for": waiting_for},
            status_code=503 if waiting_for else 200,
            headers={"Cache-Control": "no-store"} | ({"Retry-After": "1"} if waiting_for else {}),
        )

    @router.get("/v1/models", summary="Models that can be asked for")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [_model(service.args.model_name)]}

    @router.get("/v1/models/{name:path}", summary="One model")
    async def model(name: str) -> dict[str, object]:
        if name != service.args.model_name:
            raise InputError("model", f"{name[:100]!r} is unknown", f"it is {service.args.model_name!r}")
        return _model(name)

    return router


def _model(name: str) -> dict[str, object]:
    """In OpenAI's shape; nobody knows when a checkpoint was created."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "cosyvoice"}
