"""What judges a demo voice hears what listeners of the service get."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from deployments.local import LocalService
from tools.demo_voice.judge.served import ServedTalker, service_of
from tools.demo_voice.judge.speaking import Talker, Way

TEXT = "The train leaves at seven thirty."


def test_the_judge_hears_the_service(service: LocalService, demo_checkpoint: Path) -> None:
    talker = Talker(demo_checkpoint)
    recording = demo_checkpoint / "prompts" / "demo_female.wav"
    transcript = recording.with_suffix(".txt").read_text().strip()
    voice = talker.voice(recording, transcript)
    served = ServedTalker(service.url, lambda text: talker.most(text, voice))
    brought = served.voice(recording, transcript)
    own = talker.say(TEXT, voice, Way.ONE_SHOT, seed=3)
    whole, streamed = (served.say(TEXT, brought, way, seed=3) for way in (Way.ONE_SHOT, Way.STREAMED))
    assert np.abs(whole.samples - streamed.samples).max() < 2e-3
    for said in (whole, streamed):
        # The same tokens; the service cuts prompts to whole chunks, so that the sound is another.
        assert len(said.samples) == len(own.samples)
        assert said.ended == own.ended
        assert 0 < said.first_seconds <= said.seconds
    grown = served.say(TEXT, brought, Way.BI_STREAMED, seed=3)
    assert len(grown.samples) % 960 == 0
    assert grown.samples.std() > 1e-3
    # What is too long for a text is not taken for an end.
    assert not ServedTalker(service.url, lambda text: 1).say(TEXT, brought, Way.STREAMED, seed=3).ended
    with pytest.raises(httpx.HTTPStatusError):
        served.say(" ", brought, Way.ONE_SHOT, seed=3)
    with pytest.raises(RuntimeError, match=r"audio"):
        served.say(TEXT, served.voice(recording.with_suffix(".txt"), transcript), Way.BI_STREAMED, seed=3)


def test_the_judged_service_is_the_default_one_but_for_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, object]] = []

    class Started:
        """Stands for a service that would need a minute to start; what it is started with is what is tested."""

        def __init__(self, config: Path) -> None:
            seen.append(yaml.safe_load(config.read_text()))

        def __enter__(self) -> str:
            return "http://127.0.0.1:1"

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("tools.demo_voice.judge.served.own_service", Started)
    default = Path(__file__).parents[2] / "serve_config.yaml"
    with service_of(tmp_path, default) as url:
        assert url == "http://127.0.0.1:1"
    wanted = yaml.safe_load(default.read_text())
    wanted["applications"][0]["args"] |= {"model": str(tmp_path.resolve())}
    found = seen[0]["applications"][0]  # type: ignore[index]
    found["args"]["voices"] = wanted["applications"][0]["args"]["voices"]
    assert seen[0] == wanted
