"""Who may come in: API keys as OpenAI's clients send them, or in `x-api-key`. Off where no keys are set.

ASGI middleware for HTTP and WebSocket. An answer to a wrong key is the one to a missing key, and neither is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.ingress.callers import ANYONE, Caller
from deployments.ingress.errors import invalid
from deployments.ingress.keys import KeyRing

OPEN_PATHS = frozenset({"/health", "/ready"})
"""For probes, which have no keys."""

_CALLER = "cosyvoice.caller"
_POLICY_VIOLATION = 1008


class Authentication:
    """Lets a request through with its caller in the scope, or answers 401 (a WebSocket is refused before it opens)."""

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyRing,
        on_refused: Callable[[], None] = lambda: None,
        also_open: Iterable[str] = (),
    ) -> None:
        """also_open: more paths that may be read, without a query, by whoever has no key."""
        self._app = app
        self._keys = keys
        self._open_paths = OPEN_PATHS.union(also_open)
        self._on_refused = on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        key = shown_key(scope["headers"])
        caller = self._keys.caller_of(key) if key else None
        if caller is None and not _is_open(scope, self._open_paths):
            self._on_refused()
            await _refuse(scope, receive, send)
            return
        await self._app({**scope, _CALLER: caller or ANYONE}, receive, send)


def caller_of(connection: HTTPConnection) -> Caller:
    """Whoever came in with this request or WebSocket."""
    caller: Caller = connection.scope.get(_CALLER, ANYONE)
    return caller


def shown_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key of these headers; None where there is none, or there are several."""
    shown: set[str] = set()
    for name, value in headers:
        if name == b"x-api-key":
            shown.add(value.decode("latin-1").strip())
        elif name == b"authorization":
            scheme, _, key = value.decode("latin-1").strip().partition(" ")
            shown.add(key.strip() if scheme.lower() == "bearer" else "")
    return shown.pop() if len(shown) == 1 else None


def _is_open(scope: Scope, open_paths: frozenset[str]) -> bool:
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root) if root else scope["path"]
    read = scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and path in open_paths
    # With a query probes may ask more, of all stages.
    return read and not scope["query_string"]


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "no valid API key"})
        return
    answer = invalid(
        "no valid API key was given (allowed: Authorization: Bearer KEY)", status=401, code="invalid_api_key"
    )
    await JSONResponse({"error": answer.body()}, status_code=answer.status, headers={"WWW-Authenticate": "Bearer"})(
        scope, receive, send
    )
