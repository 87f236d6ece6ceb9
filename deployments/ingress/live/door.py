"""The live door: `/v1/audio/speech/stream`. One connection holds several contexts.

Behind Serve's proxy a client that has left shows in `receive` alone, so one task reads while the contexts speak.
"""

from __future__ import annotations

import asyncio
import json
import uuid

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from cosyvoice_core.errors import InputError
from deployments.ingress.authentication import caller_of
from deployments.ingress.errors import answer_for, invalid
from deployments.ingress.live.context import Context
from deployments.ingress.live.messages import Cancel, End, Error, Flush, Outgoing, Start, Text, parse
from deployments.ingress.service import SpeechService

GOING_AWAY = 1001
UNSUPPORTED = 1003


def live_routes(service: SpeechService) -> APIRouter:
    """Routes that speak a text while it is written."""
    router = APIRouter()

    @router.websocket("/v1/audio/speech/stream")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        connection = Connection(service, socket)
        try:
            await connection.serve()
        finally:
            await connection.close()

    return router


class Connection:
    """The contexts of one client."""

    def __init__(self, service: SpeechService, socket: WebSocket) -> None:
        self._service = service
        self._socket = socket
        self._caller = caller_of(socket)
        self._contexts: dict[str, Context] = {}
        # A message and the bytes behind it must not be parted by another context's.
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Until the client leaves, or is silent for too long with nothing to hear."""
        idle_s = self._service.args.limits.live_idle_s
        while True:
            try:
                async with asyncio.timeout(idle_s):
                    message = await self._socket.receive()
            except TimeoutError:
                if self._speaking:
                    continue
                refusal = invalid(f"no message came for {idle_s:g} s", code="idle")
                await self._send(Error(context_id=None, error=refusal.body()), None)
                await self._socket.close(GOING_AWAY)
                return
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                await self._socket.close(UNSUPPORTED, "messages to the service are JSON text")
                return
            await self._take(text)

    async def close(self) -> None:
        """Stop all that is being spoken."""
        await asyncio.gather(*(context.close() for context in self._contexts.values()))

    @property
    def _speaking(self) -> bool:
        return any(context.open for context in self._contexts.values())

    async def _take(self, text: str) -> None:
        context_id: str | None = None
        try:
            message = parse(text)
            context_id = message.context_id
            if isinstance(message, Start):
                await self._open(message)
                return
            context = self._contexts.get(context_id)
            if context is None or not context.open:
                raise InputError("context_id", f"context {context_id!r} is not open", "a context that was started")
            if isinstance(message, Text):
                await context.write(message.text)
            elif isinstance(message, Flush):
                await context.flush()
            elif isinstance(message, End):
                await context.end()
            elif isinstance(message, Cancel):
                del self._contexts[context_id]
                await context.cancel()
        except (InputError, ValidationError, ValueError) as error:
            await self._send(Error(context_id=context_id, error=answer_for(error).body()), None)
        except Exception as error:  # noqa: BLE001 - told to the client; the connection and other contexts go on
            await self._send(Error(context_id=context_id, error=answer_for(error).body()), None)

    async def _open(self, start: Start) -> None:
        self._contexts = {name: context for name, context in self._contexts.items() if context.open}
        most = self._service.args.limits.live_contexts
        if start.context_id in self._contexts:
            raise InputError("context_id", f"context {start.context_id!r} is open already", "another name")
        if len(self._contexts) >= most:
            raise InputError("context_id", f"{most} contexts are open already", f"at most {most} on one connection")
        await self._service.look_for_voices(start.call_for("").by(self._caller))
        self._contexts[start.context_id] = Context(
            self._service, start, start.request_id or uuid.uuid4().hex, self._send, self._caller
        )

    async def _send(self, message: Outgoing, data: bytes | None) -> None:
        async with self._sending:
            try:
                await self._socket.send_text(json.dumps(message.model_dump(exclude_none=True)))
                if data is not None:
                    await self._socket.send_bytes(data)
            except (RuntimeError, WebSocketDisconnect):
                # The client has left; reading notices it and ends all.
                return
