"""The page as files: who may read them, what they tell a browser, and that they need nothing but each other."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import httpx
import pytest
import yaml

from deployments.args import AppArgs
from deployments.ingress.deployment import make_api
from deployments.ingress.keys import KeyRing, hash_of, new_key
from deployments.ingress.page import PAGE_FILES
from tests.deployments.silent_stages import SilentStages

KEY = new_key()


@pytest.fixture(scope="module")
def service() -> SilentStages:
    return SilentStages(AppArgs())


@pytest.fixture
async def client(service: SilentStages) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_api(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


@pytest.fixture
async def keyed(service: SilentStages) -> AsyncIterator[httpx.AsyncClient]:
    ring = KeyRing(None, yaml.safe_dump({"keys": [{"name": "acme", "sha256": hash_of(KEY)}]}))
    transport = httpx.ASGITransport(make_api(service, ring), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


class Elements(HTMLParser):
    """Start tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


async def test_each_file_is_what_it_says_and_is_asked_for_again(client: httpx.AsyncClient) -> None:
    kinds = {}
    for path in PAGE_FILES:
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        kinds[path.rpartition(".")[2]] = answer.headers["content-type"]
        again = await client.get(path, headers={"if-none-match": f'"other", {answer.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.get(path, headers={"if-none-match": '"other"'})).content == answer.content
    assert kinds == {
        "/": "text/html; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }


async def test_nothing_else_can_be_read_by_its_path(client: httpx.AsyncClient) -> None:
    for path in (
        "/page/",
        "/page/index.html",
        "/page/../page.py",
        "/page/%2e%2e/page.py",
        "/static/app.js",
    ):
        assert (await client.get(path)).status_code == 404, path


async def test_the_page_needs_no_key_and_what_it_calls_does(keyed: httpx.AsyncClient) -> None:
    for path in PAGE_FILES:
        assert (await keyed.get(path)).status_code == 200, path
        assert (await keyed.head(path)).status_code == 200, path
        assert (await keyed.post(path)).status_code == 401, path
    for path in ("/page/nothing.js", "/page/", "/v1/audio/voices", "/docs"):
        assert (await keyed.get(path)).status_code == 401, path
    bearer = {"authorization": f"Bearer {KEY}", "origin": "http://test"}
    assert (await keyed.get("/v1/audio/voices", headers=bearer)).status_code == 200


async def test_the_description_of_the_api_does_not_have_it(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert "/v1/audio/speech" in paths
    assert not [path for path in paths if path in PAGE_FILES]


def test_the_page_has_nothing_that_its_policy_forbids_and_all_that_it_names() -> None:
    elements = Elements(PAGE_FILES["/"].content.decode()).found
    for tag, attributes in elements:
        assert tag != "style"
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "script" or attributes.get("src")
        for name in ("src", "href"):
            # Relative, so that it works under a route prefix as well.
            assert name not in attributes or f"/{attributes[name]}" in PAGE_FILES
    scripts = {path: file.content.decode() for path, file in PAGE_FILES.items() if path.endswith(".js")}
    for path, script in scripts.items():
        assert "innerHTML" not in script, path
        for imported in re.findall(r'from "\./([^"]+)"|new URL\("([^"]+\.js)"', script):
            assert f"/page/{''.join(imported)}" in PAGE_FILES, path


def test_every_input_has_a_label_and_every_label_an_input() -> None:
    elements = Elements(PAGE_FILES["/"].content.decode()).found
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    assert len(ids) == len([1 for _, attributes in elements if "id" in attributes])
    labelled = {attributes["for"] for tag, attributes in elements if tag == "label" and "for" in attributes}
    inputs = {
        attributes.get("id")
        for tag, attributes in elements
        if tag in ("input", "select", "textarea") and attributes.get("type") != "radio"
    }
    assert labelled == inputs
    for _, attributes in elements:
        for name in ("aria-describedby", "aria-labelledby"):
            assert set((attributes.get(name) or "").split()) <= ids
