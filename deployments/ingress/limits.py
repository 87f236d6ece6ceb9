"""Bounds on request bodies, kept while they arrive: a huge one is refused without being held, a slow one in time."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.ingress.errors import Answer, invalid


class _BodyRefusedError(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


class BodyLimit:
    """ASGI middleware that answers 413 to a body beyond `max_bytes`, and 408 to one that takes too long to come."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_large = invalid(f"body: larger than allowed (allowed: {self._max_bytes} bytes)", "body", status=413)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await too_large.response()(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        received = 0
        complete = answered = False

        async def bounded_receive() -> Message:
            nonlocal received, complete
            if complete:
                # What comes now is the client's leaving, for which nobody is in a hurry.
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                late = f"body: did not arrive in time (allowed: {self._timeout_s:g} s)"
                raise _BodyRefusedError(invalid(late, "body", status=408)) from None
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if received > self._max_bytes:
                    raise _BodyRefusedError(too_large)
            return message

        async def noted_send(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, bounded_receive, noted_send)
        except _BodyRefusedError as refused:
            if not answered:
                await refused.answer.response()(scope, receive, send)
