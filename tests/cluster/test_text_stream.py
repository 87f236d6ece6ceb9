"""Text that is spoken while it is written, through the five deployments."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from urllib.request import urlopen

import numpy as np
import pytest
import ray
from ray import serve

from cosyvoice_core.errors import InputError
from deployments.client import CosyVoiceClient
from deployments.local import LocalService
from deployments.sampling import SamplingSettings
from tests.cluster.test_service import running, stage_info, wait_until

TEXT = (
    "The train leaves at nine in the morning, and arrives in the city late in the afternoon. "
    "It costs $5.20 for the first 24 km. How are you today?"
)


def random_pieces(text: str, seed: int) -> list[str]:
    dice = random.Random(seed)
    cuts = sorted({0, len(text), *(dice.randrange(len(text)) for _ in range(30))})
    return [text[start:end] for start, end in pairwise(cuts)]


def spoken(client: CosyVoiceClient, pieces: Iterator[str] | list[str], **options: object) -> np.ndarray:
    with client.speak_stream(pieces, voice="demo_female", seed=4, realtime=False, **options) as stream:
        return stream.read()


def idle(service: LocalService) -> bool:
    return not any(running(service).values())


def test_pieces_at_random_sound_like_the_text_at_once(client: CosyVoiceClient) -> None:
    whole = spoken(client, [TEXT])
    assert len(whole) > 5 * 24000

    def slowly() -> Iterator[str]:
        for piece in random_pieces(TEXT, 1):
            time.sleep(0.03)
            yield piece

    for pieces in (random_pieces(TEXT, 2), slowly(), list(TEXT)):
        again = spoken(client, pieces)
        assert again.shape == whole.shape
        # Rounding moves the pitch, and adds up in the phase.
        assert np.abs(again - whole).max() < 1e-3


# Long enough for blocks of text beside all of a prompt's speech, whose own text is shorter than that.
GROWN = (
    "The train leaves at nine in the morning, and arrives in the city late in the afternoon after many stops, "
    "where friendly people wait for it with heavy boxes and old bags, and slowly enter, and some leave it "
)


def test_audio_starts_before_the_text_has_ended(service: LocalService, client: CosyVoiceClient) -> None:
    heard = threading.Event()

    def waiting_for_sound() -> Iterator[str]:
        yield GROWN
        assert heard.wait(60)
        yield "on the way. Thank you."

    with client.speak_stream(waiting_for_sound(), voice="demo_male", seed=1) as stream:
        chunks = iter(stream)
        first = next(chunks)
        assert running(service)["SpeechLM"] == 1
        heard.set()
        rest = np.concatenate(list(chunks))
    assert len(first)
    assert len(rest) > 24000
    wait_until(lambda: idle(service), 5)


@pytest.mark.parametrize("text", ["Yes.", "Good morning"])
def test_a_text_shorter_than_a_block_is_spoken(client: CosyVoiceClient, text: str) -> None:
    assert len(spoken(client, [text])) > 2400


def test_a_text_without_words_is_refused(client: CosyVoiceClient) -> None:
    with pytest.raises(InputError, match="nothing that can be spoken"):
        spoken(client, ["...", " !!! ", "???"])


async def test_async_pieces_and_leaving_stops_all_stages_within_a_second(service: LocalService) -> None:
    client = CosyVoiceClient(service.app_name)
    written = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal written
        while True:
            for word in TEXT.split():
                written += 1
                yield word + " "
                await asyncio.sleep(0.005)

    async with client.speak_stream(endless(), voice="demo_male") as stream:
        async for chunk in stream:
            if len(chunk):
                break
    stopped = written
    assert await asyncio.to_thread(wait_until, lambda: idle(service), 5) < 1.0
    await asyncio.sleep(0.1)
    assert written <= stopped + 1


def test_a_source_of_text_that_fails_is_reported_and_frees_everything(
    service: LocalService, client: CosyVoiceClient
) -> None:
    def failing() -> Iterator[str]:
        yield TEXT
        raise RuntimeError("the writer has died")

    with pytest.raises(RuntimeError, match="the writer has died"):
        spoken(client, failing())
    wait_until(lambda: idle(service), 5)


def test_sampling_settings_reach_the_model(client: CosyVoiceClient) -> None:
    plain = spoken(client, [TEXT])
    warm = spoken(client, [TEXT], sampling=SamplingSettings(temperature=1.5, top_p=0.95))
    assert plain.shape != warm.shape or np.abs(plain - warm).max() > 1e-2
    greedy = [spoken(client, ["Good morning."], greedy=True) for _ in range(2)]
    assert np.array_equal(*greedy)


def test_a_killed_stage_says_the_growing_text_again_from_where_it_was_heard(
    service: LocalService, client: CosyVoiceClient
) -> None:
    expected = spoken(client, [GROWN, "on the way."])
    killed = threading.Event()

    def around_the_kill() -> Iterator[str]:
        yield GROWN
        assert killed.wait(60)
        yield "on the way."

    with client.speak_stream(around_the_kill(), voice="demo_female", seed=4, realtime=False) as stream:
        chunks = iter(stream)
        heard = [next(chunks)]
        os.kill(stage_info(service, "SpeechLM").process, signal.SIGKILL)
        killed.set()
        heard.extend(chunks)
    actual = np.concatenate(heard)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-3
    wait_until(lambda: serve.status().applications[service.app_name].status == "RUNNING", 60)
    wait_until(lambda: idle(service), 5)


def metrics() -> dict[str, float]:
    """Sums over all replicas, from the metrics port of every node."""
    found: dict[str, float] = {}
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        with urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10) as page:
            for line in page.read().decode().splitlines():
                if not line.startswith("#"):
                    name, value = line.split("{")[0].split(" ")[0], line.rsplit(" ", 1)[1]
                    found[name] = found.get(name, 0.0) + float(value)
    return found


def test_what_the_language_model_does_is_counted(client: CosyVoiceClient) -> None:
    before = metrics()
    seconds = len(spoken(client, [TEXT])) / 24000

    def counted() -> bool:
        now = metrics()
        grown = {name: value - before.get(name, 0.0) for name, value in now.items()}
        return (
            grown.get("ray_cosyvoice_lm_tokens_total", 0.0) >= 25 * seconds - 1
            and grown.get("ray_cosyvoice_lm_first_token_ms_count", 0.0) >= 1
            and all(now.get(f"ray_cosyvoice_lm_{state}_requests") == 0 for state in ("running", "waiting", "paused"))
        )

    wait_until(counted, 60)


def test_a_text_that_stands_still_is_ended_and_frees_everything(service: LocalService, client: CosyVoiceClient) -> None:
    """Last, as it takes the idle timeout: a text that stops amid an utterance, and one that never begins."""
    released = threading.Event()

    def standing_still() -> Iterator[str]:
        yield "The train leaves at nine in the morning and arrives "
        released.wait(120)

    def silent() -> Iterator[str]:
        released.wait(120)
        yield from ()

    failures: list[Exception] = []

    def listen(pieces: Iterator[str]) -> None:
        try:
            spoken(client, pieces)
        except InputError as error:
            failures.append(error)

    began = time.monotonic()
    listeners = [threading.Thread(target=listen, args=(pieces(),)) for pieces in (standing_still, silent)]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        listener.join(90)
    released.set()
    assert 25 < time.monotonic() - began < 60
    assert ["no text came for 30 s" in str(error) for error in failures] == [True, True]
    wait_until(lambda: idle(service), 5)
    handle = serve.get_app_handle(service.app_name)
    assert handle.open_text.remote().result(timeout_s=10)


def test_a_text_that_nobody_reads_is_not_kept(service: LocalService, client: CosyVoiceClient) -> None:
    """Refused before it was looked at, or left in the same moment."""
    before = stage_info(service, "Ingress").held
    for _ in range(3):
        with pytest.raises(InputError, match="nobody"), client.speak_stream(["Hello."], voice="nobody") as stream:
            stream.read()
        with client.speak_stream(["Hello."], voice="demo_male"):
            pass
    wait_until(lambda: stage_info(service, "Ingress").held <= before, 10)
