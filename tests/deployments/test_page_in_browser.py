"""The page in a real browser against the real doors, without stages: keys, errors, lost connections, accessibility.

That it sounds right is tested with the five deployments, in tests/cluster/test_page.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.exceptions import BackPressureError

from deployments.args import AppArgs
from deployments.ingress.keys import KeyRing, hash_of, new_key
from tests.browser import browser
from tests.deployments.page_server import CHUNK, CHUNKS, BreakingStages, finished, heard, served, watched

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]

KEY = new_key()


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def shared_stages() -> BreakingStages:
    return BreakingStages(AppArgs())


@pytest.fixture
def stages(shared_stages: BreakingStages) -> BreakingStages:
    shared_stages.calls.clear()
    shared_stages.fail_before = shared_stages.cut_after = None
    shared_stages.slow = False
    return shared_stages


@pytest.fixture
def url(stages: BreakingStages) -> Iterator[str]:
    with served(stages) as found:
        yield found


@pytest.fixture
def page(opened: Any, url: str) -> Iterator[Any]:
    """The page of a service without keys, ready; a test fails if the browser complains of it."""
    with watched(opened) as found:
        found.goto(url)
        found.wait_for_selector("#service[data-state=ok]")
        yield found


def test_it_speaks_all_and_tells_what_it_did(page: Any, stages: BreakingStages) -> None:
    page.select_option("#voice", "demo_male")
    page.fill("#text", "Hello.")
    page.fill("#seed", "9007199254740993")
    page.click("#speak")
    finished(page)
    assert heard(page) == CHUNK * CHUNKS
    assert float(page.get_attribute("#first-audio", "value")) > 0
    (call,) = stages.calls
    # More digits than a number of the browser's language can hold.
    assert (call.text, call.voice, call.seed) == ("Hello.", "demo_male", 9007199254740993)
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "speech-9007199254740993.wav"
    sound = Path(download.value.path()).read_bytes()
    assert len(sound) == 44 + CHUNK * CHUNKS * 2
    assert len(stages.calls) == 1
    page.select_option("#format", "flac")
    with page.expect_download() as download:
        page.click("#download")
    assert Path(download.value.path()).read_bytes().startswith(b"fLaC")
    assert [call.seed for call in stages.calls] == [9007199254740993] * 2


def test_options_travel(page: Any, stages: BreakingStages) -> None:
    page.select_option("#mode", "instruct2")
    page.fill("#instructions", "Speak slowly.")
    page.fill("#speed", "1.5")
    page.click("#speak")
    finished(page)
    (call,) = stages.calls
    assert (call.mode, call.instructions, call.speed) == ("instruct2", "Speak slowly.", 1.5)
    page.select_option("#mode", "zero_shot")
    assert page.is_disabled("#instructions")
    page.click("#speak")
    finished(page)
    assert (stages.calls[-1].mode, stages.calls[-1].instructions) == ("zero_shot", "")


def test_a_lost_connection_is_taken_up_where_it_broke(page: Any, stages: BreakingStages) -> None:
    stages.cut_after = 2 * CHUNK
    page.click("#speak")
    finished(page)
    assert heard(page) == CHUNK * CHUNKS
    first, second = stages.calls
    assert (first.resume.samples, second.resume.samples) == (0, 2 * CHUNK)
    assert first.seed == second.seed


def test_what_is_missing_is_said_and_pointed_at(page: Any, stages: BreakingStages) -> None:
    page.fill("#text", "  ")
    page.click("#speak")
    assert "Type something" in page.inner_text("#error")
    assert page.get_attribute("#text", "aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "text"
    page.fill("#text", "Hello.")
    page.check("[name=source][value=upload]", force=True)
    page.click("#speak")
    assert "Choose a recording" in page.inner_text("#error")
    page.fill("#seed", "-1")
    page.check("[name=source][value=saved]", force=True)
    page.click("#speak")
    assert "whole number" in page.inner_text("#error")
    assert stages.calls == []


def test_what_the_service_refuses_is_shown_in_its_words(page: Any, stages: BreakingStages) -> None:
    page.fill("#text", "... !!!")
    page.fill("#seed", "9" * 19)
    page.click("#speak")
    page.wait_for_selector("#error:visible")
    assert "seed" in page.inner_text("#error").lower()
    assert page.get_attribute("#seed", "aria-invalid") == "true"
    page.fill("#seed", "1")
    stages.fail_before = BackPressureError(num_queued_requests=1, max_queued_requests=1)
    page.click("#speak")
    page.wait_for_selector("#error:has-text('Try again in 1 s')")
    assert page.is_disabled("#stop")
    stages.fail_before = None
    page.click("#speak")
    finished(page)
    assert page.is_hidden("#error")


def test_where_no_stream_can_be_played_the_whole_is(opened: Any, url: str) -> None:
    """As over plain http from another machine, where browsers have no worklets."""
    with watched(opened) as page:
        page.add_init_script("delete BaseAudioContext.prototype.audioWorklet")
        page.goto(url)
        page.wait_for_selector("#service[data-state=ok]")
        page.click("#speak")
        page.wait_for_selector("#status:has-text('1.0 s of speech')")
        page.wait_for_selector("#again:visible")
        page.evaluate("new Promise(heard => { again.ended ? heard() : again.onended = heard })")
        assert page.evaluate("again.duration") == CHUNK * CHUNKS / 24000


def test_a_service_that_is_gone_is_told(opened: Any, stages: BreakingStages) -> None:
    with watched(opened) as page:
        with served(stages) as url:
            page.goto(url)
            page.wait_for_selector("#service[data-state=ok]")
        page.click("#speak")
        page.wait_for_selector("#error:has-text('does not answer')")


def test_stop_stops_the_sound_and_the_service(page: Any, stages: BreakingStages) -> None:
    stages.slow = True
    page.click("#speak")
    page.wait_for_selector("#status:has-text('Speaking')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#status:has-text('Stopped')")
    assert page.is_disabled("#stop")
    for _ in range(100):
        if stages.open == 0:
            break
        page.wait_for_timeout(50)
    assert stages.open == 0
    assert heard(page) <= CHUNK
    assert page.is_visible("#again")


def test_who_speaks_again_is_not_disturbed_by_what_was_before(page: Any, stages: BreakingStages) -> None:
    stages.slow = True
    page.click("#speak")
    page.wait_for_selector("#status:has-text('Speaking')")
    stages.slow = False
    page.click("#speak")
    finished(page)
    assert heard(page) == CHUNK * CHUNKS


def test_a_key_is_asked_for_and_kept_for_the_tab_only(opened: Any, stages: BreakingStages) -> None:
    ring = KeyRing(None, yaml.safe_dump({"keys": [{"name": "acme", "sha256": hash_of(KEY)}]}))
    with served(stages, ring) as url, watched(opened) as page:
        page.goto(url)
        page.wait_for_selector("#key-panel:visible")
        assert page.evaluate("document.activeElement.id") == "key"
        page.fill("#key", "wrong")
        page.click("#use-key")
        page.wait_for_selector("#error:has-text('does not know this key')")
        page.fill("#key", KEY)
        page.press("#key", "Enter")
        page.wait_for_selector("#service[data-state=ok]")
        assert page.is_hidden("#key-panel")
        page.click("#speak")
        finished(page)
        assert stages.calls[-1].caller.name == "acme"
        assert page.evaluate("localStorage.length") == 0
        page.reload()
        page.wait_for_selector("#service[data-state=ok]")


def test_it_can_be_used_by_keyboard_alone(page: Any, stages: BreakingStages) -> None:
    order = []
    page.evaluate("document.body.focus()")
    for _ in range(20):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate("document.activeElement.id || document.activeElement.name || document.activeElement.tagName")
        )
    wanted = ["source", "voice", "SUMMARY", "mode", "instructions", "speed", "cushion", "seed", "text", "speak"]
    assert [name for name in order if name in wanted][: len(wanted)] == wanted
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    finished(page)
    assert len(stages.calls) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_no_rule_of_accessibility_is_broken(opened: Any, url: str, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe comes with the extra dev").Axe()
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "reduced_motion": "reduce"}
    with watched(opened, **options) as page:
        page.goto(url)
        page.wait_for_selector("#service[data-state=ok]")
        page.click("#speak")
        finished(page)
        page.evaluate("document.getElementById('options').open = true")
        for source in ("upload", "record", "saved"):
            page.check(f"[name=source][value={source}]", force=True)
            found = axe.run(page)
            assert found.violations_count == 0, found.generate_report()
        # Nothing has to be scrolled sideways, and all that is pressed is large enough for a thumb.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.evaluate(
            "[...document.querySelectorAll('button, select, input, summary')]"
            ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 44).map(e => e.id || e.name)"
        )
        assert small == []
        assert page.evaluate("document.getAnimations().length") == 0
