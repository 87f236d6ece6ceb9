"""API keys: what a file may hold, who is behind a key, and that a file can change while the service runs."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import pytest
import yaml

from deployments.__main__ import main
from deployments.args import SecurityArgs
from deployments.ingress.callers import ANYONE, Caller, is_key_name
from deployments.ingress.keys import ENVIRONMENT, KeyRing, KeysError, hash_of, new_key, weakness

KEY, OTHER = new_key(), new_key()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def entry(name: str, key: str, **more: object) -> dict[str, object]:
    return {"name": name, "sha256": hash_of(key), **more}


def write(path: Path, *entries: dict[str, object]) -> Path:
    """As an editor would: a new file in the old one's place."""
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump({"keys": list(entries)}))
    return new.replace(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "keys.yaml", entry("acme", KEY, priority=2, voices=["demo_*"], requests_per_minute=60))


def test_a_key_is_its_caller(file: Path) -> None:
    keys = KeyRing(file)
    assert keys.caller_of(KEY) == Caller("acme", priority=2, requests_per_minute=60, voices=("demo_*",))
    for wrong in ("", KEY[:-1], KEY + "x", KEY.upper(), hash_of(KEY), "\xff\u1234\ud800"):
        assert keys.caller_of(wrong) is None


def test_keys_of_file_and_environment_are_one_ring(file: Path) -> None:
    keys = KeyRing(file, yaml.safe_dump({"keys": [entry("beta", OTHER)]}))
    assert {keys.caller_of(key).name for key in (KEY, OTHER)} == {"acme", "beta"}  # type: ignore[union-attr]
    for clash in (entry("acme", OTHER), entry("beta", KEY)):
        with pytest.raises(KeysError, match="two keys have the same"):
            KeyRing(file, yaml.safe_dump({"keys": [clash]}))


def test_without_settings_there_are_no_keys(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert KeyRing.from_settings(SecurityArgs()) is None
    ring = KeyRing.from_settings(SecurityArgs(keys_file=str(file)))
    assert ring is not None
    assert ring.names() == ["acme"]
    monkeypatch.setenv(ENVIRONMENT, "{keys: []}")
    ring = KeyRing.from_settings(SecurityArgs())
    assert ring is not None
    assert ring.names() == []


def test_a_changed_file_is_read_while_the_service_runs(file: Path) -> None:
    clock = Clock()
    keys = KeyRing(file, clock=clock)
    write(file, entry("beta", OTHER))
    # Within a second of the last look nobody looks.
    assert keys.caller_of(KEY) is not None
    clock.now += 1.5
    assert keys.caller_of(KEY) is None
    assert keys.caller_of(OTHER) is not None


@pytest.mark.parametrize("content", [None, "keys: [", "keys: 3", "", "\xff"])
def test_a_file_that_breaks_leaves_the_last_good_keys_and_says_so_once(
    file: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    keys = KeyRing(file, clock=clock)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content.encode("latin-1"))
        os.utime(file, ns=(1, 1))
    with caplog.at_level(logging.ERROR, "ray.serve"):
        for _ in range(3):
            clock.now += 1.5
            assert keys.caller_of(KEY) is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "those before stay in force" in caplog.text
    write(file, entry("acme", OTHER))
    clock.now += 1.5
    assert (keys.caller_of(KEY), keys.caller_of(OTHER)) == (None, Caller("acme"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keys:\n - name: [", "no YAML .line"),
        (f"keys: [{{name: a, sha256: {KEY}}}]", "keys.0.sha256: String should match"),
        ("keys: [{name: a}]", "keys.0.sha256: Field required"),
        (f"keys: [{{name: a, sha256: {hash_of(KEY)}, {KEY}: 1}}]", "keys.0: Extra inputs"),
        (f"keys: [{{name: 'a b', sha256: {hash_of(KEY)}}}]", "letters, digits"),
        (f"keys: [{{name: anyone, sha256: {hash_of(KEY)}}}]", "letters, digits"),
        (f"keys: [{{name: a, sha256: {hash_of(KEY)}, max_streams: 0}}]", "keys.0.max_streams: Input should be greater"),
        ("!!python/object/apply:os.system [echo]", "no YAML"),
        ("[]", "the file"),
    ],
)
def test_a_wrong_file_refuses_to_start_and_its_secrets_are_not_told(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(KeysError, match=says) as caught:
        KeyRing(path)
    assert str(path) in str(caught.value)
    assert KEY not in str(caught.value)
    assert hash_of(KEY) not in str(caught.value)


def test_a_file_that_is_not_there_refuses_to_start(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="cannot be read"):
        KeyRing(tmp_path / "none.yaml")


def test_the_command_prints_a_key_that_its_entry_lets_in(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["keys", "new", "acme"]) == 0
    told = capsys.readouterr().out
    (key,) = (line.strip() for line in told.splitlines() if line.strip().startswith("cv-"))
    path = tmp_path / "keys.yaml"
    path.write_text("keys:\n" + told[told.index("  - name:") :])
    assert KeyRing(path).caller_of(key) == Caller("acme")
    assert weakness(key) is None
    assert main(["keys", "new", "acme"]) == 0
    assert key not in capsys.readouterr().out


@pytest.mark.parametrize(
    "weak", ["", "short", "x" * 40, "ab" * 20, "a key with blanks in it, but long enough", "ü" * 40]
)
def test_the_command_refuses_weak_keys_and_does_not_repeat_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, weak: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(weak + "\n"))
    assert main(["keys", "new", "acme", "--from-stdin"]) == 1
    out, err = capsys.readouterr()
    assert "too weak" in err
    assert not weak or weak not in out + err


def test_the_command_takes_a_strong_key_of_ones_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(OTHER + "\n"))
    assert main(["keys", "new", "acme", "--from-stdin"]) == 0
    out, _ = capsys.readouterr()
    assert hash_of(OTHER) in out
    assert OTHER not in out


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "../a", "a:b", "ä", "x" * 41, "anyone", "-_"])
def test_names_that_a_key_cannot_have(name: str) -> None:
    assert not is_key_name(name)
    assert main(["keys", "new", name] if not name.startswith("-") else ["keys", "new", "--", name]) == 2


def test_voices_of_a_key() -> None:
    acme = Caller("acme", voices=("demo_*", "beta:shared"))
    assert [
        voice for voice in ("demo_male", "other", "acme:mine", "beta:shared", "beta:own") if acme.may_use(voice)
    ] == [
        "demo_male",
        "acme:mine",
        "beta:shared",
    ]
    everything = Caller("root")
    assert everything.may_use("demo_male")
    assert not everything.may_use("acme:mine")
    assert everything.may_use(everything.own_voice("mine"))
    assert not Caller("none", voices=()).may_use("demo_male")
    assert ANYONE.may_use(ANYONE.own_voice("mine"))
    assert not ANYONE.may_use("acme:mine")


def test_the_service_does_not_start_without_the_keys_it_should_have(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "serve_config.yaml").read_text())
    config["applications"][0]["args"]["security"] = {"keys_file": str(tmp_path / "none.yaml")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["serve", "--config", str(path)]) == 1
    assert "none.yaml: cannot be read" in capsys.readouterr().err
