"""The store of voices: what is written comes back, whatever crashes, collides or is damaged on the way."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from safetensors.numpy import load, save

from cosyvoice_core.config import FlowConfig
from deployments.voices.names import Entry, left_over_file, new_id, tensors_file
from deployments.voices.record import DamagedVoiceError, VoiceRecord, new_record, written
from deployments.voices.refusal import Reason, VoiceRefusedError
from deployments.voices.store import VoiceStore
from tests.voices.made import QUALITY, made_prompt, same

FLOW = FlowConfig()


@pytest.fixture(params=["memory", "file", "renamed"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder of each kind: files put whole, renamed by the system, and renamed by fsspec."""
    if request.param == "file":
        yield f"file://{tmp_path}/voices"
        return
    folder = f"/{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    if request.param == "memory":
        yield f"memory:/{folder}"
    else:
        # A file system of our own that is none of those known to put files whole.
        yield f"dir::memory:/{folder}"
    if memory.exists(folder):
        memory.rm(folder, recursive=True)


def add(store: VoiceStore, name: str, seed: int = 0, **options: Any) -> Entry:
    prompt = made_prompt(seed)
    return store.put(new_record(name, prompt, consent="agreed", quality=QUALITY), prompt, **options)


def read(store: VoiceStore, name: str) -> tuple[VoiceRecord, Any]:
    entry = store.entries()[name]
    record = store.records([entry])[entry]
    assert isinstance(record, VoiceRecord), record
    return record, store.prompt(entry, record)


def files_of(store: VoiceStore) -> list[str]:
    return store._files()


def test_a_voice_survives_its_writer(url: str) -> None:
    add(VoiceStore(url, FLOW), "anna", seed=3)
    record, prompt = read(VoiceStore(url, FLOW), "anna")
    assert same(prompt, made_prompt(3))
    assert (record.consent, record.transcript, record.tokens) == ("agreed", "what is said", 40)
    assert record.quality is not None
    assert record.quality.warnings == ("noisy",)


def test_voices_of_a_vector_alone_are_voices(url: str) -> None:
    store, prompt = VoiceStore(url, FLOW), made_prompt(tokens=0)
    store.put(new_record("anna", prompt), prompt)
    assert same(read(store, "anna")[1], prompt)


def test_a_name_is_taken_until_it_is_overwritten_or_removed(url: str) -> None:
    store = VoiceStore(url, FLOW)
    first = add(store, "anna", seed=1)
    with pytest.raises(VoiceRefusedError) as caught:
        add(store, "anna", seed=2)
    assert caught.value.reason is Reason.EXISTS
    assert same(read(store, "anna")[1], made_prompt(1))
    second = add(store, "anna", seed=2, overwrite=True)
    assert second > first
    assert same(read(store, "anna")[1], made_prompt(2))
    assert len(files_of(store)) == 2
    assert store.remove("anna")
    assert not store.remove("anna")
    assert files_of(store) == []
    add(store, "anna", seed=4)
    assert same(read(store, "anna")[1], made_prompt(4))


def test_an_overwritten_voice_is_later_whatever_the_clock_says(url: str) -> None:
    ahead, behind = VoiceStore(url, FLOW, clock=lambda: 2e9), VoiceStore(url, FLOW, clock=lambda: 1e9)
    add(ahead, "anna", seed=1)
    add(behind, "anna", seed=2, overwrite=True)
    assert same(read(ahead, "anna")[1], made_prompt(2))


class CrashError(BaseException):
    """A process that ends here."""


class CrashingStore(VoiceStore):
    """The real store, whose process dies at the n-th write or removal."""

    def __init__(self, url: str, steps: int) -> None:
        super().__init__(url, FLOW)
        self._steps = steps

    def _step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise CrashError

    def _write(self, file: str, data: bytes) -> None:
        self._step()
        super()._write(file, data)

    def _remove(self, files: Any) -> None:
        for file in files:
            self._step()
            super()._remove([file])


@pytest.mark.parametrize("steps", range(4))
def test_a_crash_leaves_the_old_voice_or_the_new_one(url: str, steps: int) -> None:
    add(VoiceStore(url, FLOW), "anna", seed=1)
    with pytest.raises(CrashError):
        add(CrashingStore(url, steps), "anna", seed=2, overwrite=True)
    store = VoiceStore(url, FLOW)
    # The second step completes it.
    assert same(read(store, "anna")[1], made_prompt(1 if steps < 2 else 2))
    add(store, "anna", seed=3, overwrite=True)
    assert same(read(store, "anna")[1], made_prompt(3))


@pytest.mark.parametrize("steps", range(2))
def test_a_crash_while_removing_leaves_a_voice_or_none(url: str, steps: int) -> None:
    add(VoiceStore(url, FLOW), "anna")
    with pytest.raises(CrashError):
        CrashingStore(url, steps).remove("anna")
    assert list(VoiceStore(url, FLOW).entries()) == (["anna"] if steps == 0 else [])


def test_what_crashes_left_is_cleared_away_when_it_is_old_and_not_before(url: str) -> None:
    now = VoiceStore(url, FLOW)
    now._write(tensors_file("lost", new_id()), b"half")
    now._fs.pipe_file(now._path(left_over_file()), b"half")
    now._fs.pipe_file(now._path("notes.txt"), b"not ours")
    add(now, "anna")
    assert len(files_of(now)) == 5
    later = VoiceStore(url, FLOW, clock=lambda: 4e9)
    add(later, "bert")
    assert len(files_of(later)) == 5
    assert "notes.txt" in files_of(later)
    assert sorted(later.entries()) == ["anna", "bert"]
    for name in ("anna", "bert"):
        read(later, name)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = VoiceStore(str(tmp_path), FLOW)
    monkeypatch.setattr("deployments.voices.store.os.fsync", lambda _file: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(VoiceRefusedError) as caught:
        add(store, "anna")
    assert caught.value.reason is Reason.UNAVAILABLE
    assert files_of(store) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_writers_at_once_leave_one_whole_voice(url: str, overwrite: bool) -> None:
    writers = 8
    gate = threading.Barrier(writers)

    def write(seed: int) -> int | None:
        store = VoiceStore(url, FLOW)
        gate.wait()
        try:
            add(store, "anna", seed=seed, overwrite=overwrite)
        except VoiceRefusedError as error:
            assert error.reason is Reason.EXISTS
            return None
        return seed

    with ThreadPoolExecutor(writers) as threads:
        told = [seed for seed in threads.map(write, range(writers)) if seed is not None]
    store = VoiceStore(url, FLOW)
    _, prompt = read(store, "anna")
    assert any(same(prompt, made_prompt(seed)) for seed in told)
    if overwrite:
        assert len(told) == writers
    store.remove("anna")
    assert store.entries() == {}


def test_readers_see_a_whole_voice_while_it_is_overwritten(url: str) -> None:
    add(VoiceStore(url, FLOW), "anna", seed=0)
    done = threading.Event()

    def write() -> None:
        store = VoiceStore(url, FLOW)
        for seed in range(1, 30):
            add(store, "anna", seed=seed, overwrite=True)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reader, reads = VoiceStore(url, FLOW), 0
    while not done.is_set() or reads == 0:
        entry = reader.entries()["anna"]
        record = reader.records([entry])[entry]
        if isinstance(record, FileNotFoundError):
            continue
        assert isinstance(record, VoiceRecord), record
        try:
            prompt = reader.prompt(entry, record)
        except FileNotFoundError:
            continue
        assert any(same(prompt, made_prompt(seed)) for seed in range(30))
        reads += 1
    writer.join()


def damaged(store: VoiceStore, name: str, file: str, change: Any) -> None:
    path = store._path(getattr(store.entries()[name], file))
    store._fs.pipe_file(path, change(store._fs.cat_file(path)))


def resealed(**tensors: Any) -> Any:
    """A change of tensors that the record's digest goes along with, as one who can write to the store might make."""

    def change(store: VoiceStore, name: str) -> None:
        entry = store.entries()[name]
        prompt = made_prompt(1)
        record_data, data = written(new_record(name, prompt), prompt)
        changed = save({**load(data), **tensors})
        import hashlib

        record = json.loads(record_data) | {"sha256": hashlib.sha256(changed).hexdigest(), "bytes": len(changed)}
        store._fs.pipe_file(store._path(entry.tensors_file), changed)
        store._fs.pipe_file(store._path(entry.record_file), json.dumps(record).encode())

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: b"", "no JSON"),
        (lambda _: b"\xff\xfe", "no JSON"),
        (lambda _: b"[" * 60_000, "no JSON"),
        (lambda _: b"null", "record"),
        (lambda data: data[:-30], "no JSON"),
        (lambda data: data.replace(b'"format": 1', b'"format": 2'), "format"),
        (lambda data: data.replace(b'"tokens": 40', b'"tokens": -1'), "tokens"),
        (lambda data: data.replace(b'"bert"', b'"anna"'), "another voice"),
        (lambda data: data + b" " * 70_000, "more than"),
    ],
)
def test_a_damaged_record_is_one_voice_that_says_so(url: str, change: Any, says: str) -> None:
    store = VoiceStore(url, FLOW)
    add(store, "anna", seed=1)
    add(store, "bert", seed=2)
    damaged(store, "bert", "record_file", change)
    entries = store.entries()
    found = store.records([entries["anna"], entries["bert"]])
    assert isinstance(found[entries["anna"]], VoiceRecord)
    assert isinstance(found[entries["bert"]], DamagedVoiceError)
    assert says in str(found[entries["bert"]])
    read(store, "anna")
    assert store.remove("bert")
    assert len(files_of(store)) == 2


@pytest.mark.parametrize("change", [lambda _: b"", lambda data: data[:100], lambda data: b"\x80\x04." + data[3:]])
def test_damaged_tensors_are_told(url: str, change: Any) -> None:
    store = VoiceStore(url, FLOW)
    add(store, "anna")
    damaged(store, "anna", "tensors_file", change)
    with pytest.raises(DamagedVoiceError, match="not those that were written"):
        read(store, "anna")


BASE = made_prompt(1)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"speaker": BASE.speaker[:64]}, "another model"),
        ({"speaker": BASE.speaker * float("nan")}, "not finite"),
        ({"mel": BASE.mel[:, :40]}, "another model"),
        ({"mel": BASE.mel[:-2]}, "twice as many"),
        ({"mel": BASE.mel.astype("float64")}, "another kind"),
        ({"speech_tokens": BASE.speech_tokens + 6561}, "below 6561"),
        ({"speech_tokens": BASE.speech_tokens - 7000}, "below 6561"),
        ({"speech_tokens": BASE.speech_tokens[:20], "mel": BASE.mel[:40]}, "another length"),
        ({"transcript_ids": BASE.transcript_ids.reshape(1, -1)}, "another kind"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_refused(tmp_path: Path, tensors: Any, says: str) -> None:
    store = VoiceStore(str(tmp_path), FLOW)
    add(store, "anna")
    resealed(**tensors)(store, "anna")
    with pytest.raises(DamagedVoiceError, match=says):
        read(store, "anna")


def test_a_store_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(VoiceRefusedError):
        VoiceStore("nothing-such://x", FLOW)
    store = VoiceStore(str(tmp_path / "file" / "voices"), FLOW)
    for use in (store.entries, lambda: add(store, "anna"), lambda: store.remove("anna")):
        with pytest.raises(VoiceRefusedError) as caught:
            use()
        assert caught.value.reason is Reason.UNAVAILABLE
        assert str(tmp_path) not in str(caught.value)


def test_a_folder_that_is_not_there_is_an_empty_one_until_it_is_made(tmp_path: Path) -> None:
    store = VoiceStore(str(tmp_path / "a" / "voices"), FLOW)
    assert store.entries() == {}
    add(store, "anna")
    read(store, "anna")
