"""CosyVoice's own routes without stages: fields, modes, and what is refused."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from cosyvoice_core.inputs import Mode
from deployments.args import AppArgs
from deployments.ingress.deployment import make_api
from tests.deployments.silent_stages import RATE, SilentStages, refusal

FILE = {"prompt_wav": ("prompt.wav", b"RIFF", "application/octet-stream")}


@pytest.fixture(scope="module")
def service() -> SilentStages:
    return SilentStages(AppArgs())


@pytest.fixture
async def client(service: SilentStages) -> Any:
    service.calls.clear()
    transport = httpx.ASGITransport(make_api(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("route", "fields", "file", "mode"),
    [
        ("inference_sft", {"spk_id": "demo_male"}, False, Mode.SFT),
        ("inference_zero_shot", {"prompt_text": "What is said."}, True, Mode.ZERO_SHOT),
        ("inference_cross_lingual", {}, True, Mode.CROSS_LINGUAL),
        ("inference_instruct", {"spk_id": "demo_male", "instruct_text": "Slowly."}, False, Mode.INSTRUCT2),
        ("inference_instruct2", {"instruct_text": "Slowly."}, True, Mode.INSTRUCT2),
    ],
)
async def test_the_official_clients_calls_are_understood(
    client: httpx.AsyncClient,
    service: SilentStages,
    method: str,
    route: str,
    fields: dict[str, str],
    file: bool,
    mode: Mode,
) -> None:
    """It sends form fields, and a file where there is one, in a GET."""
    data = {"tts_text": "Hello.", **fields}
    response = await client.request(method, f"/{route}", data=data, files=FILE if file else None)
    assert response.status_code == 200, response.text
    assert len(response.content) == 3 * 2 * (RATE // 10)
    (call,) = service.calls
    assert (call.text, call.mode) == ("Hello.", mode)
    assert (call.prompt_audio is not None) is file
    assert call.instructions == fields.get("instruct_text", "")
    assert call.prompt_text == fields.get("prompt_text", "")
    assert call.voice == fields.get("spk_id")


@pytest.mark.parametrize(
    ("route", "data", "file", "param"),
    [
        ("inference_sft", {"tts_text": "Hello."}, False, "spk_id"),
        ("inference_sft", {"spk_id": "demo_male"}, False, "tts_text"),
        ("inference_sft", {"tts_text": "Hello.", "spk_id": "nobody"}, False, "voice"),
        ("inference_sft", {"tts_text": " ", "spk_id": "demo_male"}, False, "input"),
        ("inference_sft", {"tts_text": "Hello.", "spk_id": "demo_male"}, True, "prompt_wav"),
        ("inference_zero_shot", {"tts_text": "Hello.", "prompt_text": "x"}, False, "prompt_wav"),
        ("inference_zero_shot", {"tts_text": "Hello.", "prompt_text": " "}, True, "prompt_text"),
        ("inference_zero_shot", {"tts_text": "Hello.", "prompt_text": "x", "prompt_wav": "y"}, False, "prompt_wav"),
        ("inference_instruct2", {"tts_text": "Hello.", "instruct_text": "x", "more": "y"}, True, "more"),
    ],
)
async def test_what_is_missing_or_wrong_is_named(
    client: httpx.AsyncClient, service: SilentStages, route: str, data: dict[str, str], file: bool, param: str
) -> None:
    response = await client.post(f"/{route}", data=data, files=FILE if file else None)
    refusal(response, 400, param)
    assert service.calls == []
