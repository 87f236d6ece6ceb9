"""The script door without Ray: lines in order, pauses, what is refused before any is spoken, and bounded run-ahead."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import numpy as np
import pytest

from cosyvoice_core.utterance import segment_seed
from deployments.args import AppArgs, Limits, PlaybackArgs
from deployments.ingress.callers import Caller
from deployments.ingress.deployment import make_api
from deployments.ingress.service import SpeechService
from deployments.messages import ResumePoint, ScriptCall, SpeakCall, SpeechChunk
from deployments.quotas.ledger import QuotaError
from tests.deployments.silent_stages import refusal
from tests.deployments.speaking_stages import RATE, HearingEncoder, SpeakingVocoder, sound_of
from tests.deployments.test_formats import events

PROMPT = base64.b64encode(b"prompt").decode()


class Studio:
    """A service, its stages and a client."""

    def __init__(self, **args: Any) -> None:
        self.vocoder, self.encoder = SpeakingVocoder(), HearingEncoder()
        stages: Any = {"VoiceEncoder": self.encoder}
        self.service = SpeechService(AppArgs(**args), self.vocoder, stages)  # type: ignore[arg-type]
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(make_api(self.service), raise_app_exceptions=False), base_url="http://test"
        )

    async def read(self, lines: list[dict[str, Any]], **body: Any) -> httpx.Response:
        return await self.client.post(
            "/v1/audio/scripts", json={"lines": lines, "voice": "demo_male", "response_format": "pcm", **body}
        )

    @property
    def spoken(self) -> list[str]:
        return [task.utterance.text for task in self.vocoder.tasks]


@pytest.fixture(scope="module")
def shared_studio() -> Studio:
    limits = Limits(max_script_lines=50, max_script_chars=5000, max_unstreamed_chars=40)
    return Studio(limits=limits, voice_aliases={"alloy": "demo_female"})


@pytest.fixture
async def studio(shared_studio: Studio) -> AsyncIterator[Studio]:
    shared_studio.vocoder.tasks.clear()
    shared_studio.encoder.encoded.clear()
    yield shared_studio


def pcm(content: bytes) -> np.ndarray:
    return np.frombuffer(content, "<i2").astype(np.float32) / 32768


async def test_lines_are_heard_in_order_with_their_pauses(studio: Studio) -> None:
    answer = await studio.read(
        [{"text": "One.", "pause_s": 0.5}, {"text": "Two two two two.", "speed": 2.0}, {"text": "Three."}], pause_s=0.25
    )
    assert answer.status_code == 200, answer.text
    one, two, three = (sound_of(task.utterance) for task in studio.vocoder.tasks)
    assert studio.spoken == ["One.", "Two two two two.", "Three."]
    silence = np.zeros(RATE // 4, np.float32)
    expected = np.concatenate([one, silence, silence, two, silence, three])
    assert np.abs(pcm(answer.content) - expected).max() < 1e-3


async def test_a_line_may_ask_for_a_voice_by_its_other_name(studio: Studio) -> None:
    answer = await studio.read([{"text": "One.", "voice": name} for name in ("alloy", "demo_female", "demo_male")])
    assert answer.status_code == 200, answer.text
    other, own, male = (task.utterance.inputs.speaker.tolist() for task in studio.vocoder.tasks)
    assert other == own != male


async def test_a_line_sounds_as_it_does_alone(studio: Studio) -> None:
    await studio.read([{"text": "One."}, {"text": "Two.", "seed": 5}], seed=7)
    first, second = (task.utterance.seed for task in studio.vocoder.tasks)
    for seed in (segment_seed(7, 0), 5):
        await studio.client.post(
            "/v1/audio/speech", json={"input": "One.", "voice": "demo_male", "seed": seed, "response_format": "pcm"}
        )
    assert [task.utterance.seed for task in studio.vocoder.tasks[2:]] == [first, second]


async def test_every_field_of_a_line_reaches_it(studio: Studio) -> None:
    answer = await studio.read(
        [
            {"text": "Hello Qwen.", "style": "slowly", "lexicon": {"Hello": "Hi"}, "speed": 1.5},
            {"input": "Hello Qwen.", "voice": "demo_female", "mode": "cross_lingual"},
        ],
        lexicon={"Qwen": "Kwen"},
    )
    assert answer.status_code == 200, answer.text
    slow, plain = (task.utterance for task in studio.vocoder.tasks)
    assert (slow.text, slow.speed) == ("Hi Kwen.", 1.5)
    assert len(slow.inputs.lm_prompt_text_ids) > 0
    assert plain.text == "Hello Kwen."
    assert len(plain.inputs.lm_prompt_text_ids) == 0


async def test_voices_of_the_script_are_encoded_once(studio: Studio) -> None:
    voices = {"guest": {"ref_audio": PROMPT}, "host": {"prompt_audio": base64.b64encode(b"other").decode()}}
    lines = [{"text": "One.", "voice": name} for name in ("guest", "host", "guest", "host", "guest")]
    assert (await studio.read(lines, voices=voices)).status_code == 200
    assert studio.encoder.encoded == [b"prompt", b"other"]


@pytest.mark.parametrize(
    ("lines", "body", "param", "says"),
    [
        ([], {}, "lines", "at least 1"),
        ([{"text": "One."}] * 51, {}, "lines", "at most 50"),
        ([{"text": "x" * 2501}] * 2, {}, "lines", "at most 5000"),
        ([{"text": "x" * 21}] * 2, {"stream": False}, "lines", "at most 40"),
        ([{"text": "One."}, {"text": ""}], {}, "lines.1.text", "empty"),
        ([{"text": "One."}, {"text": "?!"}], {}, "lines.1.text", "nothing that can be spoken"),
        ([{"text": "One."}, {"text": "Two.", "voice": "nobody"}], {}, "lines.1.voice", "demo_female"),
        ([{"text": "One.", "voice": "demo_male"}, {"text": "Two."}], {"voice": None}, "lines.1.voice", "demo_female"),
        ([{"text": "One."}, {"text": "Two.", "speed": 3}], {}, "lines.1.speed", "2"),
        ([{"text": "One."}, {"text": "Two.", "mode": "vc"}], {}, "lines.1.mode", "sft"),
        ([{"text": "One."}, {"text": "Two.", "pause_s": -1}], {}, "lines.1.pause_s", "0"),
        ([{"text": "One."}, {"txt": "Two."}], {}, "lines.1.text", "required"),
        ([{"text": "One."}, {"text": "Two.", "mode": "instruct2"}], {}, "lines.1.instructions", "needs"),
        ([{"text": "One."}, {"text": "Two.", "prompt_audio": "bm9pc2U="}], {}, "lines.1.prompt_audio", "WAV"),
        ([{"text": "One."}], {"timestamps": "segment"}, None, "sse"),
    ],
)
async def test_what_is_wrong_is_told_before_any_line_is_spoken(
    studio: Studio, lines: list[dict[str, Any]], body: dict[str, Any], param: str | None, says: str
) -> None:
    assert says in refusal(await studio.read(lines, **body), 400, param)
    assert studio.vocoder.tasks == []


async def test_events_say_when_each_line_begins(studio: Studio) -> None:
    answer = await studio.read(
        [{"text": "One.", "pause_s": 0.5}, {"text": "Two."}], stream_format="sse", timestamps="hop"
    )
    told = [event for event in events(answer.text) if event["type"] != "speech.audio.delta"]
    assert [(event["type"], event.get("start"), event.get("end")) for event in told] == [
        ("script.line.started", 0.0, None),
        ("speech.segment.started", 0.0, None),
        ("speech.hop.done", 0.0, 1.0),
        ("speech.segment.done", 0.0, 1.0),
        ("script.line.started", 1.5, None),
        ("speech.segment.started", 1.5, None),
        ("speech.hop.done", 1.5, 2.5),
        ("speech.segment.done", 1.5, 2.5),
        ("speech.audio.done", None, None),
    ]


async def test_lines_of_json(studio: Studio) -> None:
    rows: list[dict[str, Any]] = [{"voice": "demo_male", "response_format": "pcm"}, {"text": "One."}, {"text": "Two."}]
    headers = {"content-type": "application/x-ndjson"}
    content = "\n".join(json.dumps(row) for row in rows)
    answer = await studio.client.post("/v1/audio/scripts", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert studio.spoken == ["One.", "Two."]
    broken = await studio.client.post("/v1/audio/scripts", content=content + "\n{", headers=headers)
    assert "line 3" in refusal(broken, 400, "body")


async def test_a_script_goes_on_where_it_was_cut_without_what_was_heard_whole(studio: Studio) -> None:
    script = ScriptCall(tuple(SpeakCall(f"Line {n}.", voice="demo_male") for n in range(4)), (0.5,) * 4, seed=3)

    async def heard(resume: ResumePoint) -> np.ndarray:
        call = ScriptCall(script.lines, script.pauses_s, seed=3, resume=resume)
        return np.concatenate([chunk.samples async for chunk in studio.service.read(call, "id")])

    whole = await heard(ResumePoint())
    first_two = studio.vocoder.tasks[:2]
    studio.vocoder.tasks.clear()
    rest = await heard(ResumePoint(2, 1000))
    assert studio.spoken == ["Line two.", "Line three."]
    np.testing.assert_array_equal(rest, whole[-len(rest) :])
    before = sum(len(sound_of(task.utterance)) for task in first_two) + RATE // 2
    assert len(whole) - len(rest) == before + 1000


async def test_all_lines_count_for_quotas() -> None:
    studio = Studio()
    caller = Caller("acme", characters_per_minute=12)
    script = ScriptCall(tuple(SpeakCall("Seven.", voice="demo_male") for _ in range(2)), seed=1).by(caller)
    assert [chunk.line async for chunk in studio.service.read(script, "id")][-1] == 1
    with pytest.raises(QuotaError):
        await anext(studio.service.read(script, "id"))


async def test_a_reader_who_stops_stops_the_work() -> None:
    """Two hours of text; the reader takes half a minute of it and then nothing for a while."""
    studio = Studio(playback=PlaybackArgs(script_look_ahead=3))
    lines = tuple(SpeakCall(f"This is line number {n} of a very long script.", voice="demo_male") for n in range(1500))
    async with aclosing(studio.service.read(ScriptCall(lines, seed=1), "id")) as chunks:
        heard_s = 0.0
        while heard_s < 30:
            heard_s += len((await anext(chunks)).samples) / RATE
        await settled(studio)
        line_s = len(sound_of(studio.vocoder.tasks[0].utterance)) / RATE
        assert studio.vocoder.made_s <= heard_s + 4 * line_s
        assert len(studio.vocoder.tasks) <= 30 / line_s + 5
        heard: list[SpeechChunk] = [await anext(chunks) for _ in range(30)]
    assert heard[-1].line > 30 / line_s


async def settled(studio: Studio) -> None:
    """Until nothing more is made."""
    made = -1.0
    while made != studio.vocoder.made_s:
        made = studio.vocoder.made_s
        for _ in range(200):
            await asyncio.sleep(0)
