"""More listeners than a small machine can serve: the short form of `python -m tests.overload`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.overload import service_with


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with service_with({"max_first_audio_s": 1.0, "unproven_listeners": 2}) as url:
        yield url


async def speak(client: httpx.AsyncClient, seed: int, **body: object) -> httpx.Response:
    text = "The train leaves at nine in the morning."
    call = {"input": text, "voice": "demo_male", "response_format": "wav", "seed": seed, **body}
    return await client.post("/v1/audio/speech", json=call, timeout=120)


async def test_a_crowd_is_served_in_part_and_the_rest_told_when_to_come_back(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        alone = await speak(client, 0)
        assert alone.status_code == 200
        answers = await asyncio.gather(*(speak(client, seed) for seed in range(24)))
        served = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(served) + len(refused) == 24
        assert served
        assert refused
        for answer in refused:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "overloaded"
        # Whoever was let in has all of it, and the first of them what he hears alone.
        assert all(len(answer.content) > 24_000 for answer in served)
        if answers[0].status_code == 200:
            crowded, quiet = (np.frombuffer(answer.content[44:], "<i2") / 32768 for answer in (answers[0], alone))
            np.testing.assert_allclose(crowded, quiet, atol=1e-3)
        # Nothing of the crowd is left.
        assert (await speak(client, 0)).status_code == 200


async def test_files_wait_for_each_other_instead_of_being_refused(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        answers = await asyncio.gather(*(speak(client, seed, stream=False) for seed in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
