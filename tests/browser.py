"""A headless Chromium for tests of the page: Debian's own, driven by Playwright, whose downloads may be out of reach.

`make browser` installs it where that is possible; without one the tests that need it are skipped and say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tools import setup_browser


def chromium() -> str:
    """Path of a browser; without one the test is skipped, but not in CI, which has to have it."""
    found = setup_browser.browser()
    if found is None:
        missing = "there is no Chromium (make browser installs one, COSYVOICE_BROWSER names one)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@contextmanager
def browser(*arguments: str) -> Iterator[Any]:
    """Playwright's browser. Open it for one module of tests without event loops of their own at a time."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright comes with the extra dev")
    # Its sandbox cannot be had by root, nor in most containers; these pages are our own.
    options = ["--no-sandbox", "--disable-dev-shm-usage", *arguments]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium(), args=options)
        try:
            yield opened
        finally:
            opened.close()


def microphone(recording: Path) -> tuple[str, ...]:
    """Arguments of a browser in whose microphone `recording` (WAV) is heard, and which asks nobody for leave."""
    return (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
    )
