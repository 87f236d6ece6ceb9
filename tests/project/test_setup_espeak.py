"""`make espeak`: what it does where the library is, where it can be installed, and where not.

`apt-get` is a script here: a test must not change the machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import setup_espeak


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are found in; the library comes into being as its file there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(setup_espeak, "installed", (tmp_path / "library").exists)
    return tmp_path


def _apt(path: Path, script: str) -> None:
    (path / "apt-get").write_text(f"#!/bin/sh\n{script}\n")
    (path / "apt-get").chmod(0o755)


def test_a_library_that_is_there_is_left_alone(path: Path) -> None:
    _apt(path, f"echo called > {path}/log")
    (path / "library").touch()
    assert setup_espeak.main() == 0
    assert not (path / "log").exists()


def test_it_is_installed_by_root_on_debian(path: Path) -> None:
    _apt(path, f'echo "$@" >> {path}/log; echo > {path}/library')
    assert setup_espeak.main() == 0
    update, install = (path / "log").read_text().splitlines()
    assert update == "update"
    assert install.endswith("--no-install-recommends libespeak-ng1 espeak-ng-data")


def test_a_failure_is_told_in_apts_words(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _apt(path, "echo no network >&2; exit 100")
    assert setup_espeak.main() == 1
    assert "no network" in capsys.readouterr().err


def test_elsewhere_it_says_what_to_do(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup_espeak.main() == 1
    assert "apt-get install libespeak-ng1 espeak-ng-data" in capsys.readouterr().out


def test_packages_without_the_library_are_no_success(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _apt(path, "exit 0")
    assert setup_espeak.main() == 1
    assert "brought no libespeak-ng.so.1" in capsys.readouterr().out
