"""`make browser`: what it does where there is a browser, where one can be installed, and where not.

`apt-get` is a script here that does what the real one would, in a folder: a test must not change the machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import setup_browser


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are found in."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("COSYVOICE_BROWSER", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return tmp_path


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_one_that_is_there_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(path / "apt-get", f"echo called > {path}/log")
    program(path / "chromium", "")
    assert setup_browser.main() == 0
    monkeypatch.setenv("COSYVOICE_BROWSER", "/somewhere/else")
    assert setup_browser.browser() == "/somewhere/else"
    assert not (path / "log").exists()


def test_it_is_installed_by_root_on_debian(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = (
        f'echo "$@" >> {path}/log; case "$1" in install) echo > {path}/chromium; /bin/chmod 755 {path}/chromium;; esac'
    )
    program(path / "apt-get", body)
    assert setup_browser.main() == 0
    update, install = (path / "log").read_text().splitlines()
    assert update == "update"
    assert "--no-install-recommends chromium" in install
    assert f"{path}/chromium" in capsys.readouterr().out


def test_a_failure_is_told_in_apts_words(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(path / "apt-get", "echo no network >&2; exit 100")
    assert setup_browser.main() == 1
    assert "no network" in capsys.readouterr().err


def test_elsewhere_it_says_what_to_do(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup_browser.main() == 1
    program(path / "apt-get", "exit 0")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert setup_browser.main() == 1
    assert capsys.readouterr().out.count("COSYVOICE_BROWSER") == 2
