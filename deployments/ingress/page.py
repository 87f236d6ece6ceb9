"""The page at `/`, for people who want to hear the service. Knows nothing of speech: it calls the API like anyone.

Its files lie in `static/` and are sent as they are; whoever reaches the service may see them, with a key or without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

_FOLDER = Path(__file__).parent / "static"
_START = "index.html"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_CONTENT_SECURITY_POLICY = "; ".join(
    (
        # Scripts, worklets, styles and calls: only those of this service, nothing that is written into the page.
        "default-src 'self'",
        # What was recorded or spoken is played from the browser's memory.
        "media-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    # Names stay the same when the service is updated, so a browser asks each time; unchanged files cost a 304.
    "cache-control": "no-cache",
    "content-security-policy": _CONTENT_SECURITY_POLICY,
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file as it is sent; the tag is of its content, so that all replicas give the same."""

    content: bytes
    media_type: str
    tag: str

    @classmethod
    def read(cls, path: Path) -> PageFile:
        content = path.read_bytes()
        return cls(content, _MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _read_files() -> Mapping[str, PageFile]:
    """By path; read once, as they never change while a replica lives."""
    files = {f"/page/{path.name}": PageFile.read(path) for path in sorted(_FOLDER.iterdir())}
    return {"/": files.pop(f"/page/{_START}"), **files}


PAGE_FILES = _read_files()


def page_routes() -> APIRouter:
    """A route for each file, so that no path of a caller is ever looked up on disk."""
    router = APIRouter(include_in_schema=False)
    for path, file in PAGE_FILES.items():
        router.add_api_route(path, _sender(file), methods=["GET", "HEAD"])
    return router


def _sender(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    headers = {**_HEADERS, "etag": file.tag}

    async def send(request: Request) -> Response:
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if file.tag in known:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    return send
