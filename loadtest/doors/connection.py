"""One HTTP connection for each request, as listeners have: nobody shares one with a stranger.

Opening it is part of what the listener waits for. httpx's own pool is not used: it looks through all its connections
whenever one opens or closes, and with 300 streams that alone filled a core and made chunks look seconds late.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import httpx

_CONNECT_S = 10.0


def connections(url: str) -> httpx.AsyncClient:
    """A client for all doors of a run."""
    # Making a context reads all root certificates, so it is made once; a plain connection needs none.
    context = ssl.create_default_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(
        base_url=url,
        timeout=httpx.Timeout(None, connect=_CONNECT_S),
        transport=OwnConnections(context),
        trust_env=False,
    )


class OwnConnections(httpx.AsyncBaseTransport):
    """Opens a connection for a request and closes it with the answer."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        connection = httpx.AsyncHTTPTransport(verify=self._context, trust_env=False)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await connection.aclose()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _LastStream(response.stream, connection)
        return response


class _LastStream(httpx.AsyncByteStream):
    """A body that takes its connection with it."""

    def __init__(self, stream: httpx.AsyncByteStream, connection: httpx.AsyncHTTPTransport) -> None:
        self._stream = stream
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
        await self._connection.aclose()
