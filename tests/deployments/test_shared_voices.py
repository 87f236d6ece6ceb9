"""Saved voices of several keys and several replicas, without Ray: who may do what, and that all see the same."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from deployments.ingress.callers import ANYONE, Caller
from deployments.ingress.deployment import make_api
from deployments.voices.args import VoicesArgs
from tests.deployments.silent_stages import refusal, speak
from tests.deployments.voice_replicas import (
    ACME,
    BETA,
    PATH,
    EncoderHandle,
    client_of,
    error_code,
    names,
    replica,
    save,
)
from tests.voices.made import same


async def test_each_key_has_voices_of_its_own(tmp_path: Path, encoder: EncoderHandle) -> None:
    service = replica(tmp_path, encoder)
    async with client_of(service, ACME) as acme, client_of(service, BETA) as beta, client_of(service) as handle:
        assert (await save(acme, "anna", consent="for acme")).json()["id"] == "acme:anna"
        assert (await save(beta, "anna")).json()["id"] == "beta:anna"
        assert (await save(acme, "acme:shared1", consent="for acme")).json()["id"] == "acme:shared1"
        assert (await save(handle, "house")).json()["id"] == "house"
        assert await names(acme) == {"acme:anna", "acme:shared1", "house"}
        assert await names(beta) == {"beta:anna", "acme:shared1", "house"}
        # Others' private voices are as if they did not exist, also to those who may not name their owner.
        for request in (beta.get, beta.delete):
            assert error_code(await request(f"{PATH}/acme:anna"), 404) == "voice_not_found"
        refusal(await speak(beta, voice="acme:anna"), 400, "voice")
        refusal(await speak(handle, voice="acme:anna"), 400, "voice")
        # What one may use is not one's own.
        assert (await speak(beta, voice="acme:shared1")).status_code == 200
        for name in ("acme:shared1", "house"):
            assert error_code(await beta.delete(f"{PATH}/{name}"), 403) == "voice_not_yours"
            assert error_code(await beta.get(f"{PATH}/{name}/export"), 403) == "voice_not_yours"
        assert (await beta.get(f"{PATH}/acme:shared1")).json()["consent"] == ""
        assert (await acme.get(f"{PATH}/shared1")).json()["consent"] == "for acme"
        assert error_code(await save(beta, "acme:new"), 403) == "voice_not_yours"
        assert error_code(await save(beta, "acme:anna", overwrite="true"), 403) == "voice_not_yours"
        # A short name is one's own before everybody's.
        assert (await speak(acme, voice="anna")).status_code == 200
        assert (await acme.delete(f"{PATH}/anna")).json()["id"] == "acme:anna"
        assert await names(beta) == {"beta:anna", "acme:shared1", "house"}
        assert (await beta.delete(f"{PATH}/beta:anna")).json()["id"] == "beta:anna"


async def test_ones_own_voice_may_have_a_name_of_the_models(tmp_path: Path, encoder: EncoderHandle) -> None:
    service = replica(tmp_path, encoder)
    async with client_of(service, ACME) as acme:
        assert (await save(acme, "demo_male")).json()["id"] == "acme:demo_male"
    model, own = service.voices.models_own["demo_male"], Caller("acme")
    assert not same(await service.voices.prompt("demo_male", own), model)
    assert same(await service.voices.prompt("demo_male", ANYONE), model)
    assert same(await service.voices.prompt("demo_male", Caller("beta")), model)


async def test_there_are_bounds_of_each_key_and_of_all(tmp_path: Path, encoder: EncoderHandle) -> None:
    service = replica(tmp_path, encoder, max_per_key=2, max_voices=4)
    async with client_of(service, ACME) as acme, client_of(service, BETA) as beta, client_of(service) as handle:
        for name in ("a", "b"):
            assert (await save(acme, name)).status_code == 201
        refused = await save(acme, "c")
        assert error_code(refused, 409) == "too_many_voices"
        assert "allowed: 2" in refused.json()["error"]["message"]
        assert (await save(acme, "b", overwrite="true")).status_code == 201
        for client, name in ((beta, "a"), (handle, "d")):
            assert (await save(client, name)).status_code == 201
        assert error_code(await save(handle, "e"), 409) == "too_many_voices"
        await acme.delete(f"{PATH}/a")
        assert (await save(handle, "e")).status_code == 201


async def test_bounds_hold_for_those_who_come_together(tmp_path: Path, encoder: EncoderHandle) -> None:
    service = replica(tmp_path, encoder, max_per_key=2)
    async with client_of(service, ACME) as acme:
        answers = await asyncio.gather(*(save(acme, f"voice{number}") for number in range(5)))
        assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409]
        same_name = await asyncio.gather(*(save(acme, "voice0", overwrite="true") for _ in range(3)))
        assert len(await names(acme)) == 2
        assert {answer.status_code for answer in same_name} <= {201, 409}


async def test_all_replicas_see_a_new_voice_at_once_and_a_removed_one_no_more(
    tmp_path: Path, encoder: EncoderHandle
) -> None:
    one, two = replica(tmp_path, encoder), replica(tmp_path, encoder, look_every_s=0)
    async with client_of(one) as first, client_of(two) as second:
        assert await names(second) == set()
        await save(first)
        # Not even half a second later.
        assert (await speak(second, voice="anna")).status_code == 200
        assert same(await two.voices.prompt("anna"), await one.voices.prompt("anna"))
        await second.delete(f"{PATH}/anna")
        refusal(await speak(second, voice="anna"), 400, "voice")
        one.voices.catalogue._args = VoicesArgs(look_every_s=0)  # type: ignore[union-attr]
        refusal(await speak(first, voice="anna"), 400, "voice")


async def test_the_websocket_knows_voices_that_were_saved_elsewhere(tmp_path: Path, encoder: EncoderHandle) -> None:
    one, two = replica(tmp_path, encoder), replica(tmp_path, encoder)
    async with client_of(one) as first:
        await save(first)

    def started() -> list[str]:
        """Of the answers to two starts the type, and the field that an error names."""
        answers: list[dict[str, Any]] = []
        # The test client cancels a door that has not ended at once when it hangs up, and then complains of that.
        with (
            TestClient(make_api(two)) as opened,
            suppress(CancelledError),
            opened.websocket_connect("/v1/audio/speech/stream") as socket,
        ):
            for name in ("anna", "nobody"):
                socket.send_json({"type": "start", "voice": name, "context_id": name})
                answers.append(socket.receive_json())
        return [answer["type"] + answer.get("error", {}).get("param", "") for answer in answers]

    assert await asyncio.to_thread(started) == ["started", "errorvoice"]
