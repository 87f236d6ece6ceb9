"""A bound on request bodies, kept while they arrive, so that a huge one is refused without being held."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.ingress.errors import invalid


class _BodyTooLargeError(Exception):
    pass


class BodyLimit:
    """ASGI middleware that answers 413 to a body beyond `max_bytes`."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = invalid(
            f"body: larger than allowed (allowed: {self._max_bytes} bytes)", "body", status=413
        ).response()
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await refusal(scope, receive, send)
            return
        received = 0
        answered = False

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_bytes:
                    raise _BodyTooLargeError
            return message

        async def noted_send(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, counted_receive, noted_send)
        except _BodyTooLargeError:
            if not answered:
                await refusal(scope, receive, send)
