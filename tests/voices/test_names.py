"""Names of voices and of their files: strict, and no text of a user's reaches a path."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.errors import InputError
from deployments.voices.names import Entry, check_full_name, check_name, new_id, owner_of, read_entry, written_at


@pytest.mark.parametrize(
    "name", ["anna", "Anna-2", "demo_male", "v1.2", "中文女", "Zoë", "한국어", "हिन्दी", "7", "a" * 64]
)
def test_names_of_any_script_are_names(name: str) -> None:
    assert check_name(name) == name
    assert check_full_name(name) == name
    assert check_full_name(f"acme:{name}") == f"acme:{name}"


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "a b", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", "~", "-a", "_a", ".a", "a:b", "a:b:c", ":a"),
        *("a\0b", "a\nb", "a\u202eb", "a\u200db", "a%2e", "*", "a?", "[a]", "{a}", "$a", "\ud800", "é" * 46),
        # Not in composed form, and full width: two names that look like one.
        *("e\u0301", "ａ", "ﬁ", "a" * 65),
    ],
)
def test_other_texts_are_none(name: str) -> None:
    with pytest.raises(InputError, match="allowed: 1 to 64 letters"):
        check_name(name)


@pytest.mark.parametrize("name", ["anyone:a", "a b:c", ":a", "a:", "a:b:c", "../a:b"])
def test_full_names_have_the_name_of_a_key_before_them(name: str) -> None:
    with pytest.raises(InputError):
        check_full_name(name)


def test_the_owner_stands_before_the_colon() -> None:
    assert owner_of("acme:anna") == "acme"
    assert owner_of("anna") == ""


@settings(max_examples=50, deadline=None)
@given(name=st.text(min_size=1, max_size=64), version=st.integers(0, 2**50))
def test_whatever_is_a_name_has_files_of_plain_letters_that_tell_it(name: str, version: int) -> None:
    try:
        check_name(name)
    except InputError:
        return
    entry = Entry(version, new_id(), f"acme:{name}")
    for file in (entry.record_file, entry.tensors_file):
        assert re.fullmatch(r"[a-z2-7]+(\.[0-9a-f]+)+\.(json|safetensors)", file)
    assert read_entry(entry.record_file) == entry


def test_the_longest_names_fit_into_a_file_name() -> None:
    name = check_full_name("k" * 40 + ":" + "中" * 30)
    assert max(len(Entry(2**56 - 1, new_id(), name).record_file), len(Entry(0, new_id(), name).tensors_file)) <= 255


def test_later_versions_are_greater_and_their_names_too() -> None:
    entries = [Entry(version, "0" * 20, "a") for version in (1, 255, 256, 2**50)]
    assert entries == sorted(entries)
    assert [entry.record_file for entry in entries] == sorted(entry.record_file for entry in entries)


@pytest.mark.parametrize("file", ["", "notes.txt", "index.json", "a.json", "../x.json", "mfxg4yi.00000000000001.json"])
def test_other_files_are_no_voices(file: str) -> None:
    assert read_entry(file) is None
    assert written_at(file) is None
