"""What a replica knows of the store: looks when asked and seldom, finds new voices at once, stays up without it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from cosyvoice_core.config import FlowConfig
from deployments.voices.args import VoicesArgs
from deployments.voices.catalogue import Catalogue
from deployments.voices.names import Entry
from deployments.voices.record import new_record
from deployments.voices.refusal import Reason, VoiceRefusedError
from deployments.voices.store import VoiceStore
from tests.voices.made import made_prompt, same


class WatchedStore(VoiceStore):
    """The real store; counts what it is asked for, and can be made to hang or to be away as a network is."""

    def __init__(self, url: str) -> None:
        super().__init__(url, FlowConfig())
        self.listings = self.prompts = self.records_read = 0
        self.away = False
        self.asked, self.answers = threading.Event(), threading.Event()
        self.answers.set()

    def entries(self) -> Mapping[str, Entry]:
        self.listings += 1
        self.asked.set()
        self.answers.wait(60)
        if self.away:
            raise VoiceRefusedError(Reason.UNAVAILABLE, "away")
        return super().entries()

    def records(self, entries):  # type: ignore[no-untyped-def]
        self.records_read += len(entries)
        return super().records(entries)

    def prompt(self, entry, record):  # type: ignore[no-untyped-def]
        self.prompts += 1
        return super().prompt(entry, record)


class Clock:
    """Goes on by itself as little as a clock does from one look at it to the next."""

    now = 100.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


def add(store: VoiceStore, name: str, seed: int = 0, *, overwrite: bool = False) -> None:
    prompt = made_prompt(seed)
    store.put(new_record(name, prompt), prompt, overwrite=overwrite)


@pytest.fixture
def writer(tmp_path: Path) -> VoiceStore:
    return VoiceStore(str(tmp_path), FlowConfig())


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(str(tmp_path))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogue(store: WatchedStore, clock: Clock) -> Catalogue:
    return Catalogue(store, VoicesArgs(look_every_s=0.5, timeout_s=60), clock=clock)


async def test_the_store_is_looked_at_when_asked_and_at_most_every_half_second(
    catalogue: Catalogue, store: WatchedStore, writer: VoiceStore, clock: Clock
) -> None:
    add(writer, "anna")
    assert store.listings == 0
    for _ in range(50):
        await catalogue.look()
    assert (store.listings, list(catalogue.listed)) == (1, ["anna"])
    writer.remove("anna")
    clock.now += 0.49
    await catalogue.look()
    assert (store.listings, list(catalogue.listed)) == (1, ["anna"])
    clock.now += 0.02
    await catalogue.look()
    assert (store.listings, list(catalogue.listed)) == (2, [])


async def test_what_must_be_known_now_is_looked_at_now_and_those_who_ask_together_share_a_look(
    catalogue: Catalogue, store: WatchedStore, writer: VoiceStore, clock: Clock
) -> None:
    await catalogue.look()
    add(writer, "anna")
    await catalogue.look_now()
    assert "anna" in catalogue.listed
    before = store.listings
    clock.now += 1
    await asyncio.gather(*(catalogue.look_now() for _ in range(50)))
    # One that the first began, and one for all who came after.
    assert store.listings == before + 2


async def test_a_look_that_began_before_one_asked_does_not_count(
    catalogue: Catalogue, store: WatchedStore, writer: VoiceStore, clock: Clock
) -> None:
    store.answers.clear()
    early = asyncio.create_task(catalogue.look_now())
    await asyncio.to_thread(store.asked.wait, 60)
    clock.now += 0.01
    late = asyncio.create_task(catalogue.look_now())
    await asyncio.sleep(0)
    add(writer, "anna")
    store.answers.set()
    await asyncio.gather(early, late)
    assert (store.listings, list(catalogue.listed)) == (2, ["anna"])


async def test_a_record_is_read_once_and_a_voice_stays_in_memory(
    catalogue: Catalogue, store: WatchedStore, writer: VoiceStore, clock: Clock
) -> None:
    for number in range(5):
        add(writer, f"voice{number}", number)
    for _ in range(3):
        clock.now += 1
        await catalogue.look()
    assert store.records_read == 5
    for _ in range(3):
        assert same(await catalogue.prompt("voice3"), made_prompt(3))
    assert store.prompts == 1
    add(writer, "voice3", 9, overwrite=True)
    clock.now += 1
    await catalogue.look()
    assert same(await catalogue.prompt("voice3"), made_prompt(9))
    writer.remove("voice3")
    clock.now += 1
    await catalogue.look()
    assert catalogue.loaded_bytes == 0
    with pytest.raises(VoiceRefusedError) as caught:
        await catalogue.prompt("voice3")
    assert caught.value.reason is Reason.UNKNOWN


async def test_memory_is_bounded_and_the_voice_longest_unused_goes(store: WatchedStore, writer: VoiceStore) -> None:
    prompt = made_prompt()
    size = sum(len(getattr(prompt, name).tobytes()) for name in ("speaker", "speech_tokens", "mel", "transcript_ids"))
    catalogue = Catalogue(store, VoicesArgs(cache_bytes=2 * size))
    for name in ("a", "b", "c"):
        add(writer, name)
    await catalogue.look_now()
    for name in ("a", "b", "a", "c", "a", "b"):
        await catalogue.prompt(name)
        assert catalogue.loaded_bytes <= 2 * size
    # Read: a, b, c (b goes), b again.
    assert store.prompts == 4


async def test_without_its_store_a_replica_serves_the_voices_it_knows(
    catalogue: Catalogue, store: WatchedStore, writer: VoiceStore, clock: Clock
) -> None:
    add(writer, "anna")
    await catalogue.look()
    await catalogue.prompt("anna")
    store.away = True
    clock.now += 1
    await catalogue.look()
    assert same(await catalogue.prompt("anna"), made_prompt())
    with pytest.raises(VoiceRefusedError) as caught:
        await catalogue.look_now()
    assert caught.value.reason is Reason.UNAVAILABLE
    before = store.listings
    await catalogue.look()
    assert store.listings == before
    store.away = False
    add(writer, "bert")
    clock.now += 1
    await catalogue.look()
    assert sorted(catalogue.listed) == ["anna", "bert"]


async def known(catalogue: Catalogue) -> None:
    """However long the machine takes for a look."""
    async with asyncio.timeout(60):
        while True:
            try:
                await catalogue.look_now()
            except VoiceRefusedError:
                continue
            return


async def test_a_store_that_hangs_is_not_waited_for_again_and_again(
    store: WatchedStore, writer: VoiceStore, clock: Clock
) -> None:
    catalogue = Catalogue(store, VoicesArgs(look_every_s=0.5, timeout_s=0.1), clock=clock)
    add(writer, "anna")
    await known(catalogue)
    before = store.listings
    store.answers.clear()
    clock.now += 1
    try:
        await catalogue.look()
        # Late already: whoever comes now does not wait at all, and no second look is begun.
        clock.now += 1
        async with asyncio.timeout(30):
            for _ in range(1000):
                await catalogue.look()
        with pytest.raises(VoiceRefusedError):
            await catalogue.look_now()
        assert store.listings == before + 1
        assert same(await catalogue.prompt("anna"), made_prompt())
    finally:
        store.answers.set()
    writer.remove("anna")
    await known(catalogue)
    assert catalogue.listed == {}


async def test_a_voice_that_is_replaced_while_it_is_read_is_the_new_one(
    catalogue: Catalogue, store: WatchedStore, writer: VoiceStore
) -> None:
    add(writer, "anna", 1)
    await catalogue.look_now()
    add(writer, "anna", 2, overwrite=True)
    assert same(await catalogue.prompt("anna"), made_prompt(2))


async def test_a_damaged_voice_says_so_in_the_list_and_harms_no_other(
    catalogue: Catalogue, writer: VoiceStore, clock: Clock
) -> None:
    for name in ("anna", "bert", "carl", "dora"):
        add(writer, name)
    entries = writer.entries()
    writer._fs.pipe_file(writer._path(entries["bert"].record_file), b"{")
    writer._fs.pipe_file(writer._path(entries["carl"].tensors_file), b"x")
    writer._fs.rm_file(writer._path(entries["dora"].tensors_file))
    await catalogue.look_now()
    assert catalogue.listed["bert"].problem
    for name in ("bert", "carl", "dora"):
        with pytest.raises(VoiceRefusedError) as caught:
            await catalogue.prompt(name)
        assert caught.value.reason is Reason.DAMAGED
        assert repr(name) in str(caught.value)
    clock.now += 1
    await catalogue.look_now()
    assert sorted(name for name, listed in catalogue.listed.items() if listed.problem) == ["bert", "carl", "dora"]
    assert same(await catalogue.prompt("anna"), made_prompt())
    add(writer, "carl", 5, overwrite=True)
    await catalogue.look_now()
    assert same(await catalogue.prompt("carl"), made_prompt(5))
    assert not catalogue.listed["carl"].problem
