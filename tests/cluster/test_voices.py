"""Saved voices through the whole service: saved by HTTP or handle, they speak as their recording does."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from cosyvoice_core.errors import InputError
from cosyvoice_core.voice.saved import load_saved_voices
from deployments.client import CosyVoiceClient
from deployments.local import LocalService
from deployments.voices.refusal import Reason, VoiceRefusedError

TEXT = "Good morning, how are you today."
PATH = "/v1/audio/voices"


def samples(answer: httpx.Response) -> np.ndarray:
    return np.frombuffer(answer.content, "<i2").astype(np.float32) / 32768


def test_a_voice_saved_by_http_speaks_as_its_recording_does(
    service: LocalService, client: CosyVoiceClient, prompts: Path, tmp_path: Path
) -> None:
    audio, transcript = (prompts / "demo_bright.wav").read_bytes(), (prompts / "demo_bright.txt").read_text()
    upload = {"audio": ("bright.wav", audio, "audio/wav")}
    with httpx.Client(base_url=service.url, timeout=120) as http:
        made = http.post(PATH, data={"name": "bright", "transcript": transcript, "consent": "made"}, files=upload)
        assert made.status_code == 201, made.text
        assert made.json()["quality"]["duration_s"] > 1
        sound = {"input": TEXT, "response_format": "pcm", "stream": False, "seed": 5}
        saved = http.post("/v1/audio/speech", json={**sound, "voice": "bright"})
        form = {name: str(value).lower() if isinstance(value, bool) else value for name, value in sound.items()}
        given = http.post(
            "/v1/audio/speech", data={**form, "prompt_text": transcript}, files={"prompt_audio": upload["audio"]}
        )
        assert saved.status_code == given.status_code == 200, saved.text
        assert len(saved.content) > 24_000
        assert len(saved.content) == len(given.content)
        # The same numbers went in; those computed once more from caches of the prompt may be rounded otherwise.
        assert np.abs(samples(saved) - samples(given)).max() < 1e-3
        official = http.post("/inference_sft", data={"tts_text": "Hello.", "spk_id": "bright"})
        assert (official.status_code, len(official.content) > 1000) == (200, True)
        # Doors that stream, and callers by handle, have the same voice.
        heard = client.speak(TEXT, voice="bright", seed=5).read()
        assert len(heard) == len(saved.content) // 2
        exported = tmp_path / "spk2info.pt"
        exported.write_bytes(http.get(f"{PATH}/bright/export").content)
        assert len(load_saved_voices(exported)["bright"].speech_tokens) > 0
        refused = http.post(PATH, data={"name": "noise"}, files={"audio": ("a.wav", b"RIFF", "audio/wav")})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "audio")
        assert http.delete(f"{PATH}/bright").status_code == 200
        assert http.get(f"{PATH}/bright").status_code == 404


async def test_voices_by_handle(client: CosyVoiceClient, prompts: Path) -> None:
    made = await client.aadd_voice("deep", prompts / "demo_deep.wav", "What is said.", consent="made")
    assert (made.info.name, made.consent) == ("deep", "made")
    assert made.quality is not None
    assert "deep" in {voice.name for voice in await client.avoices()}
    assert await client.avoice("deep") == made
    chunks = [chunk async for chunk in client.speak("Hello.", voice="deep", seed=1)]
    assert np.concatenate(chunks).any()
    with pytest.raises(VoiceRefusedError) as caught:
        await client.aadd_voice("deep", prompts / "demo_deep.wav")
    assert caught.value.reason is Reason.EXISTS
    with pytest.raises(InputError, match="audio"):
        await client.aadd_voice("noise", b"no sound")
    await client.aremove_voice("deep")
    with pytest.raises(VoiceRefusedError) as caught:
        await client.avoice("deep")
    assert caught.value.reason is Reason.UNKNOWN


def test_voices_by_handle_without_an_event_loop(client: CosyVoiceClient, prompts: Path) -> None:
    assert client.add_voice("plain", (prompts / "demo_deep.wav").read_bytes()).info.modes[0] == "sft"
    assert client.voice("plain").transcript == ""
    client.remove_voice("plain")
    with pytest.raises(VoiceRefusedError):
        client.remove_voice("plain")
    assert "plain" not in {voice.name for voice in client.voices()}
