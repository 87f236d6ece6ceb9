"""Saved voices at the doors of one replica, without Ray: that what is saved is the voice, and what is refused."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.voice.saved import load_saved_voices
from deployments.args import AppArgs
from deployments.messages import SpeakCall
from deployments.voices.args import VoicesArgs
from deployments.voices.store import VoiceStore
from tests.deployments.silent_stages import SilentStages, refusal, speak
from tests.deployments.voice_replicas import (
    AUDIO,
    PATH,
    PROMPTS,
    TRANSCRIPT,
    EncoderHandle,
    client_of,
    error_code,
    loaded,
    names,
    replica,
    save,
)
from tests.voices.made import same


@pytest.fixture
def service(tmp_path: Path, encoder: EncoderHandle) -> SilentStages:
    return replica(tmp_path, encoder)


@pytest.fixture
async def client(service: SilentStages) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(service) as opened:
        yield opened


async def test_a_saved_voice_is_listed_told_spoken_with_and_removed(
    client: httpx.AsyncClient, service: SilentStages
) -> None:
    made = await save(client, consent="Anna agreed on 1 May.")
    assert made.status_code == 201, made.text
    told = made.json()
    assert (told["id"], told["object"], told["saved"], told["problem"]) == ("anna", "audio.voice", True, "")
    assert told["modes"] == ["sft", "zero_shot", "cross_lingual", "instruct2", "vc"]
    assert told["consent"] == "Anna agreed on 1 May."
    assert told["quality"]["duration_s"] > 1
    assert isinstance(told["quality"]["warnings"], list)
    assert told["created_at"] > 1.7e9
    assert await names(client) == {"anna"}
    assert (await client.get(f"{PATH}/anna")).json() == told
    for voice in ("anna", {"id": "anna"}):
        assert (await speak(client, voice=voice)).status_code == 200
    official = await client.post("/inference_sft", data={"tts_text": "Hello.", "spk_id": "anna"})
    assert official.status_code == 200
    assert [call.voice for call in service.calls] == ["anna"] * 3
    gone = await client.delete(f"{PATH}/anna")
    assert gone.json() == {"id": "anna", "object": "audio.voice.deleted", "deleted": True}
    assert await names(client) == set()
    assert error_code(await client.get(f"{PATH}/anna"), 404) == "voice_not_found"
    assert error_code(await client.delete(f"{PATH}/anna"), 404) == "voice_not_found"
    refusal(await speak(client, voice="anna"), 400, "voice")


async def test_a_saved_voice_is_the_voice_of_the_same_prompt_audio(
    client: httpx.AsyncClient, service: SilentStages, tmp_path: Path, encoder: EncoderHandle
) -> None:
    call = SpeakCall("Hello.", prompt_audio=AUDIO, prompt_text=TRANSCRIPT)
    given = await service._voice(call, service.request_of(call, streamed=True))
    await save(client)
    assert len(given.transcript_ids) > 0
    assert same(await service.voices.prompt("anna"), given)
    # And after a restart, from the files alone.
    again = SilentStages(AppArgs(voices=VoicesArgs(url=f"file://{tmp_path}")))
    await again.voices.look("anna")
    assert same(await again.voices.prompt("anna"), given)


async def test_without_a_transcript_it_has_none(client: httpx.AsyncClient, service: SilentStages) -> None:
    told = (await save(client, transcript=" ")).json()
    assert "zero_shot" not in told["modes"]
    assert len((await service.voices.prompt("anna")).transcript_ids) == 0


async def test_fields_are_spelled_as_other_servers_do(client: httpx.AsyncClient) -> None:
    made = await client.post(
        PATH, data={"name": "anna", "ref_text": TRANSCRIPT}, files={"audio_sample": ("a.wav", AUDIO, "audio/wav")}
    )
    assert made.status_code == 201, made.text
    assert "zero_shot" in made.json()["modes"]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"name": "../../etc/passwd"}, "name", "letters, digits"),
        ({"name": "a b"}, "name", "letters, digits"),
        ({"name": ""}, "name", "letters, digits"),
        ({"name": "a\0b"}, "name", "letters, digits"),
        ({"name": "x" * 65}, "name", "1 to 64"),
        ({"name": "a" * 100_000}, "name", "1 to 64"),
        ({"transcript": "x" * 2001}, "transcript", "2000"),
        ({"consent": "x" * 2001}, "consent", "2000"),
        ({"overwrite": "perhaps"}, "overwrite", "boolean"),
        ({"colour": "red"}, "colour", "not permitted"),
        ({"prompt_text": "twice"}, "prompt_text", "twice"),
    ],
)
async def test_wrong_fields_are_named_before_the_recording_is_read(
    client: httpx.AsyncClient, encoder: EncoderHandle, fields: dict[str, str], param: str, says: str
) -> None:
    before = encoder.encoded
    assert says in refusal(await save(client, **fields), 400, param)
    assert encoder.encoded == before
    assert await names(client) == set()


@pytest.mark.parametrize("audio", [b"", b"RIFF", b"<html>" * 100, AUDIO[:4000]])
async def test_recordings_that_cannot_be_used_are_refused_and_nothing_is_kept(
    client: httpx.AsyncClient, tmp_path: Path, audio: bytes
) -> None:
    assert "allowed" in refusal(await save(client, audio=audio), 400, "audio")
    assert VoiceStore(str(tmp_path), FlowConfig())._files() == []


async def test_a_poor_recording_is_saved_with_a_warning(client: httpx.AsyncClient) -> None:
    with wave.open(io.BytesIO(AUDIO)) as sound:
        rate, samples = sound.getframerate(), np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(np.clip(samples.astype(np.int32) * 30, -32768, 32767).astype("<i2").tobytes())
    told = (await save(client, audio=file.getvalue())).json()
    assert any("clipped" in warning for warning in told["quality"]["warnings"])


@pytest.mark.parametrize(
    "request_of",
    [
        partial(dict, json={"name": "anna"}),
        partial(dict, data={"name": "anna"}),
        partial(dict, data={"name": "anna", "audio": "text"}),
        partial(dict, data={"x": "y"}, files={"name": ("a", b"x"), "audio": ("b", b"x")}),
        partial(dict, content=b"--x", headers={"content-type": "multipart/form-data; boundary=y"}),
        partial(dict, content=b"--x", headers={"content-type": "multipart/form-data"}),
    ],
)
async def test_other_bodies_are_refused(client: httpx.AsyncClient, request_of: Any) -> None:
    response = await client.post(PATH, **request_of())
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_a_name_that_is_taken_is_kept_unless_it_is_to_be_replaced(
    client: httpx.AsyncClient, service: SilentStages, encoder: EncoderHandle
) -> None:
    other = (PROMPTS / "demo_bright.wav").read_bytes()
    await save(client)
    first = await service.voices.prompt("anna")
    before = encoder.encoded
    assert error_code(await save(client, audio=other), 409) == "voice_exists"
    assert error_code(await save(client, name="demo_male", overwrite="true"), 409) == "voice_exists"
    assert encoder.encoded == before
    assert same(await service.voices.prompt("anna"), first)
    assert (await save(client, audio=other, overwrite="true")).status_code == 201
    assert not same(await service.voices.prompt("anna"), first)


async def test_the_models_own_voices_stay(client: httpx.AsyncClient) -> None:
    assert error_code(await client.delete(f"{PATH}/demo_male"), 403) == "voice_not_yours"
    told = (await client.get(f"{PATH}/demo_male")).json()
    assert (told["saved"], told["quality"]) == (False, None)
    assert (await speak(client)).status_code == 200


async def test_a_damaged_voice_is_reported_and_harms_no_other(client: httpx.AsyncClient, service: SilentStages) -> None:
    for name in ("anna", "bert"):
        await save(client, name)
    assert service.voices.catalogue is not None
    store: VoiceStore = service.voices.catalogue.store
    path = store._path(store.entries()["bert"].tensors_file)
    store._fs.pipe_file(path, store._fs.cat_file(path)[:-1])
    service.voices.catalogue._loaded.clear()
    answer = await client.get(f"{PATH}/bert/export")
    assert error_code(answer, 500) == "voice_damaged"
    listed = {voice["name"]: voice["problem"] for voice in (await client.get(PATH)).json()["voices"]}
    assert listed["anna"] == ""
    assert "not those that were written" in listed["bert"]
    assert (await client.get(f"{PATH}/anna/export")).status_code == 200
    assert (await client.delete(f"{PATH}/bert")).status_code == 200


async def test_a_service_without_a_store_says_so() -> None:
    async with client_of(loaded()) as client:
        assert error_code(await save(client), 501) == "no_voice_store"
        assert error_code(await client.delete(f"{PATH}/anna"), 501) == "no_voice_store"
        assert error_code(await client.get(f"{PATH}/anna"), 404) == "voice_not_found"
        assert (await client.get(f"{PATH}/demo_male")).status_code == 200


async def test_a_store_that_is_away_is_a_503_and_the_models_voices_speak_on(
    client: httpx.AsyncClient, service: SilentStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service.voices.catalogue is not None
    monkeypatch.setattr(service.voices.catalogue.store._fs, "ls", lambda *_a, **_k: (_ for _ in ()).throw(OSError("x")))
    answer = await save(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "voice_store_unavailable")
    assert answer.headers["retry-after"]
    assert (await speak(client, voice="anna")).status_code == 503
    assert (await speak(client, voice="demo_male")).status_code == 200
    assert (await client.get(PATH)).status_code == 200


@pytest.mark.parametrize("flavour", ["original", "vector", "text"])
async def test_an_exported_file_is_the_same_voice(
    client: httpx.AsyncClient, service: SilentStages, tmp_path: Path, flavour: str
) -> None:
    await save(client)
    answer = await client.get(f"{PATH}/anna/export", params={"flavour": flavour})
    assert "attachment" in answer.headers["content-disposition"]
    file = tmp_path / "spk2info.pt"
    file.write_bytes(answer.content)
    read, saved = load_saved_voices(file)["anna"], await service.voices.prompt("anna")
    np.testing.assert_array_equal(read.speaker, saved.speaker)
    if flavour != "vector":
        np.testing.assert_array_equal(read.mel, saved.mel)
        np.testing.assert_array_equal(read.speech_tokens, saved.speech_tokens)
        np.testing.assert_array_equal(read.transcript_ids, saved.transcript_ids)
    assert refusal(await client.get(f"{PATH}/anna/export", params={"flavour": "sour"}), 400, "flavour")


async def test_the_record_is_json_that_people_can_read(client: httpx.AsyncClient, tmp_path: Path) -> None:
    await save(client, "中文女", consent="Sie hat am 1. Mai zugestimmt – schriftlich.")
    (entry,) = VoiceStore(str(tmp_path), FlowConfig()).entries().values()
    record = json.loads((tmp_path / entry.record_file).read_text(encoding="utf-8"))
    assert (record["name"], record["consent"]) == ("中文女", "Sie hat am 1. Mai zugestimmt – schriftlich.")
    assert (await client.get(f"{PATH}/中文女")).json()["id"] == "中文女"


async def test_the_api_description_tells_of_the_form(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()["paths"]
    schema = described[PATH]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(schema["required"]) == {"name", "audio"}
    assert set(described[f"{PATH}/{{name}}"]) == {"get", "delete"}
