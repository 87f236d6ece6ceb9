"""What is refused of any request before its body is looked at, whoever sends it; and headers of every answer.

A browser lets every web page send requests to a service on its user's machine or network; CORS only keeps the page from
reading the answers, and WebSockets know no CORS. So a page whose origin is neither this service's own nor allowed is
refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.args import SecurityArgs
from deployments.ingress.errors import Answer, invalid

_POLICY_VIOLATION = 1008
_RUN_ON = b"x-request-disconnect-disabled"
"""With this header Serve would go on computing for a client that has left."""


class Guard:
    """ASGI middleware for HTTP and WebSocket."""

    def __init__(self, app: ASGIApp, security: SecurityArgs, max_header_bytes: int) -> None:
        self._app = app
        self._origins = security.cors_origins
        self._hosts = frozenset(host.lower() for host in security.allowed_hosts)
        self._max_header_bytes = max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-content-type-options"] = "nosniff"
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_safe)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal.message})
        else:
            await refusal.response()(scope, receive, send_safe)

    def _refusal(self, scope: Scope) -> Answer | None:
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._max_header_bytes:
            return invalid(f"headers: larger than allowed (allowed: {self._max_header_bytes} bytes)", status=431)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self._hosts and _host(headers.get(b"host", "")) not in self._hosts:
            return invalid("this service is not called so (Host header)", status=403, code="host_not_allowed")
        if not self._from_here(headers):
            return invalid("web pages of this origin may not call", status=403, code="origin_not_allowed")
        if any(name == _RUN_ON and value != b"?0" for name, value in scope["headers"]):
            return invalid(f"{_RUN_ON.decode()}: is not offered here")
        return None

    def _from_here(self, headers: Mapping[bytes, str]) -> bool:
        """Whether it was sent by no web page, by one of this service, or by one that may. TLS may end before us."""
        origin = headers.get(b"origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return True
        return origin.partition("://")[2].lower() == headers.get(b"host", "").lower() != ""


def _host(given: str) -> str:
    """Without port; "" for what is no host."""
    try:
        return urlsplit(f"//{given}").hostname or ""
    except ValueError:
        return ""
