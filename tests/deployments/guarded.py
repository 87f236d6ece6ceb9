"""A service without Ray behind its doors, with keys and without, for tests of what the doors refuse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import yaml
from fastapi import WebSocket

from deployments.args import Limits
from deployments.ingress.authentication import caller_of
from deployments.ingress.deployment import make_api
from deployments.ingress.keys import KeyRing, hash_of, new_key
from tests.deployments.silent_stages import SilentStages

LIMITS = Limits(max_body_bytes=100_000, max_text_chars=2000, max_header_bytes=2048, body_timeout_s=0.2)
ACME, BETA = new_key(), new_key()
_KEYS = {
    "keys": [
        {"name": "acme", "sha256": hash_of(ACME), "priority": 3, "voices": ["demo_m*"]},
        {"name": "beta", "sha256": hash_of(BETA), "requests_per_minute": 2, "max_streams": 5},
    ]
}
PAGE = "https://page.example"


def key_ring() -> KeyRing:
    return KeyRing(None, yaml.safe_dump(_KEYS))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def client_of(service: SilentStages, keys: KeyRing | None = None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(make_api(service, keys), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def connect(
    app: Any, headers: Iterable[tuple[bytes, bytes]] = (), path: str = "/talk"
) -> tuple[list[dict[str, Any]], str | None]:
    """Open a WebSocket as a server would: what came back, and who the door says it is."""
    sent: list[dict[str, Any]] = []
    met: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def talk(socket: WebSocket) -> None:
        met.append(caller_of(socket).name)
        await socket.accept()
        await socket.close()

    app.add_api_websocket_route("/talk", talk)
    scope = {"type": "websocket", "path": path, "headers": list(headers), "query_string": b"", "subprotocols": []}
    await app(scope, receive, send)
    return sent, met[0] if met else None
