"""Saved voices in a folder that an fsspec URL names: a local or shared directory, S3, GCS, ... Blocking calls only.

A voice is two files: its tensors, and its record, which names them. The record is written last and removed first, so a
voice is there as a whole or not at all, and nothing that is written is ever changed: an overwritten voice is a new
version beside the old one, which is then removed. So the names of the files alone tell what there is, one listing tells
everything that changed, and what was read once stays true. What a crash leaves half written is no voice; later writers
clear it away. Knows neither callers nor event loops.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fsspec.core import url_to_fs

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.inputs import VoicePrompt
from deployments.voices import names
from deployments.voices.names import Entry
from deployments.voices.record import (
    MAX_RECORD_BYTES,
    MAX_TENSOR_BYTES,
    DamagedVoiceError,
    VoiceRecord,
    read_record,
    read_tensors,
    written,
)
from deployments.voices.refusal import Reason, VoiceRefusedError

logger = logging.getLogger("ray.serve")

_WHOLE_AT_ONCE = frozenset(
    {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf", "memory", "http", "https"}
)
"""Where a file appears complete when it is put, and a rename would be a copy. Elsewhere files are renamed."""

_FORGOTTEN_AFTER_S = 3600.0
"""A writer that has not completed a voice by now is gone."""


class VoiceStore:
    """The voices of one folder. Raises VoiceRefusedError (UNAVAILABLE) from all methods when it cannot be reached."""

    def __init__(self, url: str, flow: FlowConfig, *, clock: Callable[[], float] = time.time) -> None:
        """Raises VoiceRefusedError for a URL that no file system is known for. The folder need not be there yet."""
        self._flow = flow
        self._clock = clock
        # Most listings are as the last one was, and need not be read name by name.
        self._seen: tuple[list[str], dict[str, Entry]] = ([], {})
        with _reached():
            self._fs, self._folder = url_to_fs(url, use_listings_cache=False)
            protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
            self._local = "file" in protocols
            self._renames = not protocols & _WHOLE_AT_ONCE

    def entries(self) -> Mapping[str, Entry]:
        """The latest version of each voice by name: one listing, no file is opened."""
        files = self._files()
        before, entries = self._seen
        if files != before:
            entries = _latest(files)
            self._seen = (files, entries)
        return entries

    def records(self, entries: Sequence[Entry]) -> dict[Entry, VoiceRecord | Exception]:
        """Records of entries, together where the file system can; what one of them cannot be read for is its value.

        DamagedVoiceError stays; of an entry that was removed since it is FileNotFoundError, else what there was.
        """
        paths = [self._path(entry.record_file) for entry in entries]
        with _reached():
            # Of a larger file only so much that it can be told to be too large.
            ends = [MAX_RECORD_BYTES + 1] * len(paths)
            found = self._fs.cat_ranges(paths, [0] * len(paths), ends, on_error="return") if paths else []
        return {entry: _record(entry, content) for entry, content in zip(entries, found, strict=True)}

    def prompt(self, entry: Entry, record: VoiceRecord) -> VoicePrompt:
        """The voice itself. Raises DamagedVoiceError, and FileNotFoundError when it was removed since."""
        path = self._path(entry.tensors_file)
        if record.bytes > MAX_TENSOR_BYTES:
            raise DamagedVoiceError(f"its tensors have {record.bytes} bytes, more than {MAX_TENSOR_BYTES}")
        with _reached():
            # A longer file than was written is not read to its end; its digest tells.
            try:
                data: bytes = self._fs.cat_file(path, start=0, end=max(record.bytes, 1))
            except OSError as error:
                if not _is_of_an_empty_file(error):
                    raise
                data = b""
        return read_tensors(data, record, self._flow)

    def put(self, record: VoiceRecord, prompt: VoicePrompt, *, overwrite: bool = False) -> Entry:
        """Write a voice, complete when this returns. Raises VoiceRefusedError (EXISTS) for a name that is taken.

        Of two that make the same name at once one stays; the other is told so, unless both were within the same moment.
        """
        files = self._files()
        before = _latest(files).get(record.name)
        if before is not None and not overwrite:
            raise _taken(record.name)
        record_data, tensors_data = written(record, prompt)
        # One that cannot be read again must not be written.
        read_tensors(tensors_data, read_record(record_data, record.name), self._flow)
        written_id = names.new_id()
        self._write(names.tensors_file(record.name, written_id), tensors_data)
        now = int(self._clock() * 1e6)
        entry = Entry(max(now, before.version + 1 if before else 0), written_id, record.name)
        self._write(entry.record_file, record_data)
        files = self._files()
        others = [one for one in _versions(files, record.name) if one < entry]
        if others and not overwrite:
            self._remove((entry.record_file, entry.tensors_file))
            raise _taken(record.name)
        self._remove(file for one in others for file in (one.record_file, one.tensors_file))
        self._clear(files)
        return entry

    def remove(self, name: str) -> bool:
        """Whether there was such a voice; a damaged one goes like any other."""
        files = self._files()
        versions = _versions(files, name)
        self._remove(one.record_file for one in versions)
        self._remove(one.tensors_file for one in versions)
        self._clear(files)
        return bool(versions)

    def _files(self) -> list[str]:
        with _reached():
            self._fs.invalidate_cache(self._folder)
            try:
                paths = self._fs.ls(self._folder, detail=False)
            except FileNotFoundError:
                # Object stores have no empty folders.
                return []
        return sorted(str(path).rsplit("/", 1)[-1] for path in paths)

    def _write(self, file: str, data: bytes) -> None:
        place = self._path(file)
        with _reached():
            self._fs.makedirs(self._folder, exist_ok=True)
            if not self._renames:
                self._fs.pipe_file(place, data)
                return
            partial = self._path(names.left_over_file())
            try:
                if self._local:
                    with Path(partial).open("wb") as opened:
                        opened.write(data)
                        opened.flush()
                        os.fsync(opened.fileno())
                    # Within one folder, so never the copy that a move may be.
                    Path(partial).replace(place)
                else:
                    self._fs.pipe_file(partial, data)
                    self._fs.mv(partial, place)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._fs.rm_file(partial)
                raise

    def _remove(self, files: Iterable[str]) -> None:
        for file in files:
            with _reached(), contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(file))

    def _clear(self, files: Sequence[str]) -> None:
        """Remove what writers that are long gone have left; a failure is somebody else's next time."""
        kept = {entry.tensors_file for entry in map(names.read_entry, files) if entry is not None}
        old = self._clock() - _FORGOTTEN_AFTER_S
        forgotten = [file for file in files if file not in kept and (names.written_at(file) or old) < old]
        try:
            self._remove(forgotten)
        except VoiceRefusedError as error:
            logger.warning("voices: %d files that are left over could not be removed: %s", len(forgotten), error)

    def _path(self, file: str) -> str:
        return f"{self._folder}/{file}"


def _latest(files: Iterable[str]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in map(names.read_entry, files):
        if entry is not None and (entry.name not in found or found[entry.name] < entry):
            found[entry.name] = entry
    return found


def _versions(files: Iterable[str], name: str) -> list[Entry]:
    return [entry for entry in map(names.read_entry, files) if entry is not None and entry.name == name]


def _record(entry: Entry, content: object) -> VoiceRecord | Exception:
    if isinstance(content, Exception):
        return DamagedVoiceError("its record is no JSON, it is empty") if _is_of_an_empty_file(content) else content
    assert isinstance(content, bytes)
    try:
        return read_record(content, entry.name)
    except DamagedVoiceError as error:
        return error


def _is_of_an_empty_file(error: Exception) -> bool:
    """Object stores have no part of nothing (HTTP 416), which fsspec gives this number."""
    return isinstance(error, OSError) and error.errno == errno.EINVAL


def _taken(name: str) -> VoiceRefusedError:
    return VoiceRefusedError(Reason.EXISTS, f"there is a voice {name!r} already (allowed: overwrite=true, or another)")


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """What goes wrong in here is the store's, but for files that are not there and voices that are wrong."""
    try:
        yield
    except (FileNotFoundError, DamagedVoiceError, VoiceRefusedError):
        raise
    # Each file system has errors of its own.
    except Exception as error:
        logger.error("voices: the store cannot be used: %s: %s", type(error).__name__, error)
        raise VoiceRefusedError(
            Reason.UNAVAILABLE, f"the store of voices cannot be used ({type(error).__name__})"
        ) from error
