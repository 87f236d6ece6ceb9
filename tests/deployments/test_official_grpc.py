"""CosyVoice's own gRPC service without stages: modes, statuses, keys, and who may call from where."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml
from google.protobuf import descriptor_pb2
from ray.serve.grpc_util import RayServegRPCContext

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import Mode
from deployments.args import AppArgs, Limits, SecurityArgs
from deployments.ingress.keys import KeyRing, hash_of, new_key
from deployments.ingress.official_grpc import cosyvoice_pb2
from deployments.ingress.official_grpc.cosyvoice_pb2_grpc import add_CosyVoiceServicer_to_server
from deployments.ingress.official_grpc.door import OfficialGrpc, is_local
from deployments.mailbox import OverloadedError
from tests.audio.sounds import tone
from tests.deployments.official_client import OfficialMessages
from tests.deployments.silent_stages import RATE, SilentStages

PROMPT = (tone(1.0, 16000) * 32767).astype("<i2").tobytes()
SFT = {"sft_request": {"spk_id": "demo_male", "tts_text": "Hello."}}
KEY = new_key()
KEYED = pytest.mark.parametrize(
    "keys", [{"keys": [{"name": "acme", "sha256": hash_of(KEY), "priority": 3}]}], indirect=True, ids=["keyed"]
)


class Proxy:
    """Stands for Serve's gRPC proxy and the replica behind it: carries the context as they do, without Ray."""

    def __init__(self, door: OfficialGrpc) -> None:
        self._door = door
        self.peer: str | None = None

    async def Inference(self, request: Any, context: Any) -> AsyncIterator[Any]:  # the rpc's name
        carried = RayServegRPCContext(context)
        if self.peer is not None:
            carried._peer = self.peer
        async for response in self._door.inference(request, carried):
            carried._set_on_grpc_context(context)
            yield response


@pytest.fixture(scope="module")
def service() -> SilentStages:
    return SilentStages(AppArgs(limits=Limits(max_body_bytes=200_000)))


@pytest.fixture
def keys(request: pytest.FixtureRequest) -> KeyRing | None:
    """None but for tests that give some."""
    given = getattr(request, "param", None)
    return None if given is None else KeyRing(None, yaml.safe_dump(given))


@pytest.fixture
async def proxy(service: SilentStages, keys: KeyRing | None) -> Proxy:
    service.calls.clear()
    service.fail_before = service.fail_after = None
    return Proxy(OfficialGrpc(service, keys))


@pytest.fixture
async def port(proxy: Proxy) -> AsyncIterator[int]:
    server = grpc.aio.server()
    add_CosyVoiceServicer_to_server(proxy, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


@pytest.fixture
async def infer(port: int) -> AsyncIterator[Any]:
    """Calls with a request as a mapping; gives the sound, or raises the channel's error."""
    messages = OfficialMessages()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        rpc = messages.inference(channel)

        async def call(request: dict[str, Any], metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
            stream = rpc(messages.Request(**request), metadata=metadata)
            sound = b"".join([response.tts_audio async for response in stream])
            call.trailing = dict(await stream.trailing_metadata())  # type: ignore[attr-defined]
            return sound

        yield call


async def refused(infer: Any, request: dict[str, Any], metadata: tuple[tuple[str, str], ...] = ()) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(request, metadata)
    return caught.value


@pytest.mark.parametrize(
    ("request_", "mode", "voice", "prompt_text", "instructions"),
    [
        (SFT, Mode.SFT, "demo_male", "", ""),
        (
            {"zero_shot_request": {"tts_text": "Hello.", "prompt_text": "What is said.", "prompt_audio": PROMPT}},
            Mode.ZERO_SHOT,
            None,
            "What is said.",
            "",
        ),
        ({"cross_lingual_request": {"tts_text": "Hello.", "prompt_audio": PROMPT}}, Mode.CROSS_LINGUAL, None, "", ""),
        (
            {"instruct_request": {"tts_text": "Hello.", "spk_id": "demo_male", "instruct_text": "Slowly."}},
            Mode.INSTRUCT2,
            "demo_male",
            "",
            "Slowly.",
        ),
    ],
)
async def test_the_official_clients_requests_are_understood(
    infer: Any,
    service: SilentStages,
    request_: dict[str, Any],
    mode: Mode,
    voice: str | None,
    prompt_text: str,
    instructions: str,
) -> None:
    assert len(await infer(request_)) == 3 * 2 * (RATE // 10)
    (call,) = service.calls
    assert (call.text, call.mode, call.voice) == ("Hello.", mode, voice)
    assert (call.prompt_text, call.instructions) == (prompt_text, instructions)
    if mode in (Mode.ZERO_SHOT, Mode.CROSS_LINGUAL):
        assert call.prompt_audio is not None
        decoded = decode_audio(call.prompt_audio)
        assert decoded.rate == 16000
        np.testing.assert_array_equal(decoded.samples, np.frombuffer(PROMPT, "<i2") / np.float32(32768))
    assert service.open == 0


async def test_seed_and_request_id_come_and_go_as_metadata(infer: Any, service: SilentStages) -> None:
    await infer(SFT, (("x-seed", "7"), ("x-request-id", "abc-1")))
    assert service.calls[0].seed == 7
    assert infer.trailing["x-seed"] == "7"
    assert infer.trailing["x-request-id"] == "abc-1"
    assert infer.trailing["x-sample-rate"] == str(RATE)
    await infer(SFT)
    assert infer.trailing["x-seed"] == str(service.calls[1].seed)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({}, "sft_request, zero_shot_request"),
        ({"sft_request": {}}, "tts_text"),
        ({"sft_request": {"tts_text": "Hello."}}, "spk_id"),
        ({"sft_request": {"tts_text": "Hello.", "spk_id": "nobody"}}, "demo_female"),
        ({"sft_request": {"tts_text": "Hello.", "spk_id": "../../etc/passwd"}}, "demo_female"),
        ({"sft_request": {"tts_text": " \n", "spk_id": "demo_male"}}, "some words"),
        ({"sft_request": {"tts_text": "x" * 250_000, "spk_id": "demo_male"}}, "200000 bytes"),
        ({"zero_shot_request": {"tts_text": "Hello.", "prompt_text": "x"}}, "16 kHz"),
        ({"zero_shot_request": {"tts_text": "Hello.", "prompt_audio": PROMPT}}, "prompt_text"),
        ({"cross_lingual_request": {"tts_text": "Hello.", "prompt_audio": b"odd"}}, "3 bytes"),
        ({"instruct_request": {"tts_text": "Hello.", "spk_id": "demo_male"}}, "instruct_text"),
    ],
)
async def test_what_is_wrong_is_an_invalid_argument_that_says_what_is_allowed(
    infer: Any, service: SilentStages, request_: dict[str, Any], says: str
) -> None:
    error = await refused(infer, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in error.details()
    assert service.calls == []


@pytest.mark.parametrize("seed", ["x", "-1", "1.5", "9" * 40, ""])
async def test_a_wrong_seed_is_refused(infer: Any, seed: str) -> None:
    error = await refused(infer, SFT, (("x-seed", seed),))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "x-seed" in error.details()


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (InputError("prompt_audio", "is silent", "speech"), grpc.StatusCode.INVALID_ARGUMENT),
        (RuntimeError("secret detail"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_failures_have_a_status(infer: Any, service: SilentStages, problem: Exception, code: Any) -> None:
    service.fail_before = problem
    error = await refused(infer, SFT)
    assert error.code() is code
    assert "secret" not in error.details()


async def test_an_overloaded_service_says_when_to_try_again(infer: Any, service: SilentStages) -> None:
    service.fail_before = OverloadedError("no room", retry_after_s=6.2)
    error = await refused(infer, SFT)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "no room (retry after 7 s)"
    trailing = dict(error.trailing_metadata())
    assert (trailing["retry-after"], trailing["grpc-retry-pushback-ms"]) == ("7", "6200")
    assert trailing["error-code"] == "overloaded"


async def test_a_failure_after_the_first_audio_never_looks_complete(
    port: int, proxy: Proxy, service: SilentStages
) -> None:
    service.fail_after = RuntimeError("broken")
    messages = OfficialMessages()
    heard = b""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for response in messages.inference(channel)(messages.Request(**SFT)):
                heard += response.tts_audio
    assert len(heard) == 2 * (RATE // 10)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert service.open == 0


async def test_a_client_that_leaves_closes_its_stream(port: int, service: SilentStages) -> None:
    messages = OfficialMessages()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = messages.inference(channel)(messages.Request(**SFT))
        await stream.read()
        stream.cancel()
        async with asyncio.timeout(30):
            while service.open:  # noqa: ASYNC110 - the server's own task closes it
                await asyncio.sleep(0.01)
    assert len(service.calls) == 1


@KEYED
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer"),),
        (("authorization", KEY),),
        (("authorization", f"Bearer {KEY[:-1]}"),),
        (("authorization", f"Bearer {KEY}"), ("x-api-key", "other")),
    ],
)
async def test_without_a_valid_key_nobody_is_heard(
    infer: Any, service: SilentStages, metadata: tuple[tuple[str, str], ...]
) -> None:
    error = await refused(infer, SFT, metadata)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "authorization" in error.details()
    assert service.calls == []


@KEYED
@pytest.mark.parametrize("metadata", [(("authorization", f"Bearer {KEY}"),), (("x-api-key", KEY),)])
async def test_a_key_is_its_caller(infer: Any, service: SilentStages, metadata: tuple[tuple[str, str], ...]) -> None:
    await infer(SFT, metadata)
    (call,) = service.calls
    assert (call.caller.name, call.priority) == ("acme", 3)


async def test_other_machines_are_refused_unless_they_may(infer: Any, proxy: Proxy, service: SilentStages) -> None:
    proxy.peer = "ipv4:192.0.2.7:50000"
    error = await refused(infer, SFT)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert service.calls == []
    allowed = SilentStages(AppArgs(security=SecurityArgs(grpc_from_anywhere=True)))
    proxy._door = OfficialGrpc(allowed, None)
    assert await infer(SFT)


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:50000", True),
        ("ipv6:[::1]:50000", True),
        ("ipv6:%5B::1%5D:50000", True),
        ("ipv6:[::ffff:127.0.0.1]:50000", True),
        ("unix:/run/socket", True),
        ("ipv4:192.0.2.7:50000", False),
        ("ipv6:[2001:db8::1]:50000", False),
        ("ipv6:[::ffff:192.0.2.7]:50000", False),
        ("ipv6:[fe80::1%eth0]:50000", False),
        ("ipv4:127.0.0.1.example.com:1", False),
        ("", False),
    ],
)
def test_who_is_of_this_machine(peer: str, local: bool) -> None:
    assert is_local(peer) is local


async def test_metadata_is_bounded(infer: Any, service: SilentStages) -> None:
    """gRPC itself refuses what is larger than 16 KiB; the limit may be lower."""
    error = await refused(infer, SFT, (("x-more", "x" * 40_000),))
    assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert service.calls == []


def test_what_was_generated_is_what_the_protocol_says(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="the protocol compiler is not installed")
    root = Path(__file__).parents[2]
    source = "deployments/ingress/official_grpc/cosyvoice.proto"
    found = tmp_path / "found.bin"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={found}", source]
    subprocess.run(command, cwd=root, check=True, timeout=120)
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(found.read_bytes()).file
    committed = descriptor_pb2.FileDescriptorProto()
    cosyvoice_pb2.DESCRIPTOR.CopyToProto(committed)
    for one in (file, committed):
        for message in one.message_type:
            for field in message.field:
                field.ClearField("json_name")
    assert committed == file
