"""All doors by the names that scenarios use. A new door is one file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import httpx

from loadtest.doors.door import Door
from loadtest.doors.handle import HandleDoor
from loadtest.doors.http import HttpDoor, HttpForm, OfficialDoor
from loadtest.doors.live import LiveDoor
from loadtest.errors import ScenarioError
from loadtest.prompt_audio import PromptAudio


@dataclass(frozen=True, slots=True)
class Service:
    """The service under test as its doors need it. app_name: of the Serve application, for handle calls."""

    web: httpx.AsyncClient
    app_name: str
    prompt: PromptAudio | None


def _http(form: HttpForm) -> Callable[[Service], Awaitable[Door]]:
    async def opened(service: Service) -> Door:
        return HttpDoor(service.web, service.prompt, form)

    return opened


async def _official(service: Service) -> Door:
    return OfficialDoor(service.web, service.prompt)


async def _live(service: Service) -> Door:
    return LiveDoor(str(service.web.base_url), service.prompt)


async def _handle(service: Service) -> Door:
    return await HandleDoor.connect(service.app_name, service.prompt, text_in=False)


async def _handle_text(service: Service) -> Door:
    return await HandleDoor.connect(service.app_name, service.prompt, text_in=True)


DOORS: dict[str, Callable[[Service], Awaitable[Door]]] = {
    "http-wav": _http(HttpForm.WAV),
    "http-pcm": _http(HttpForm.PCM),
    "http-whole": _http(HttpForm.WHOLE),
    "http-sse": _http(HttpForm.SSE),
    "websocket-text": _live,
    "official": _official,
    "handle": _handle,
    "handle-text": _handle_text,
}
NEED_RAY = frozenset({"handle", "handle-text"})


def check_names(names: Iterable[str]) -> None:
    """Raises ScenarioError for a door there is no client for."""
    unknown = sorted(set(names) - set(DOORS))
    if unknown:
        raise ScenarioError(f"mix.doors: no door {', '.join(unknown)}; there are {', '.join(DOORS)}")


async def open_doors(names: Iterable[str], service: Service) -> dict[str, Door]:
    return {name: await DOORS[name](service) for name in names}
