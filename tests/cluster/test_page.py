"""The page in a real browser on the five deployments: what reaches the loudspeaker is what the API gives, without gaps.

A node that the test puts before the loudspeaker keeps each sample of it; the page is not told of it. Its module is the
test's own, which the page's security policy would refuse, so that is off here, and on in
tests/deployments/test_page_in_browser.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from deployments.local import LocalService
from tests.browser import browser, microphone
from tests.cluster.test_service import running, wait_until
from tests.readme import ROOT

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

Samples = npt.NDArray[np.int16]

SENTENCE = "Good morning, how are you today."
LONG = "The train leaves at nine in the morning, and arrives late in the afternoon after many stops. " * 20
PROMPT = ROOT / "checkpoints/demo/prompts/demo_deep"
KEEPER = """
registerProcessor("keeper", class extends AudioWorkletProcessor {
  process([[input]], [[output]]) {
    if (!input) return true;
    output.set(input);
    this.port.postMessage(input);
    return true;
  }
});
"""
LISTEN = (
    f"const KEEPER = {json.dumps(KEEPER)};"
    + """
window.loudspeaker = [];
const load = AudioWorklet.prototype.addModule;
AudioWorklet.prototype.addModule = async function (module) {
  await load.call(this, module);
  await load.call(this, URL.createObjectURL(new Blob([KEEPER], { type: "text/javascript" })));
};
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (!(this instanceof AudioWorkletNode && target instanceof AudioDestinationNode)) {
    return connect.call(this, target, ...rest);
  }
  window.loudspeaker = [];
  const keeper = new AudioWorkletNode(target.context, "keeper", { outputChannelCount: [1] });
  keeper.port.onmessage = ({ data }) => window.loudspeaker.push(...data);
  connect.call(keeper, target);
  return connect.call(this, keeper);
};
"""
)


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser(*microphone(PROMPT.with_suffix(".wav"))) as found:
        yield found


@pytest.fixture
def page(opened: Any, service: LocalService) -> Iterator[Any]:
    context = opened.new_context(permissions=["microphone"], bypass_csp=True)
    context.add_init_script(LISTEN)
    failures: list[str] = []
    found = context.new_page()
    found.set_default_timeout(60_000)
    found.on("pageerror", lambda error: failures.append(str(error)))
    found.goto(f"{service.url}/")
    found.wait_for_selector("#service[data-state=ok]")
    yield found
    context.close()
    assert failures == []


def loudspeaker(page: Any) -> Samples:
    """All that was played since the last press of Speak, silence before and after included."""
    return np.array(page.evaluate("loudspeaker.map((sample) => sample * 32768)")).astype(np.int16)


def told(page: Any, gauge: str) -> int:
    """A gauge of the page, in samples; 0 before there is one."""
    return int(page.get_attribute(f"#{gauge}", "value") or 0)


def spoken(service: LocalService, **body: Any) -> Samples:
    """The same from the API, without a page."""
    answer = httpx.post(f"{service.url}/v1/audio/speech", json={"response_format": "pcm", **body}, timeout=120)
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, "<i2")


def speak_to_the_end(page: Any) -> None:
    page.click("#speak")
    page.wait_for_selector("#status:has-text('Spoke ')")


def gap_between(played: Samples, sound: Samples) -> int:
    """Samples of silence within `played` that are not in `sound`; all else must be the same, in the same order."""
    start = np.flatnonzero(played)[0] - np.flatnonzero(sound)[0]
    assert start >= 0
    gap = at = 0
    for sample in played[start:]:
        if at < len(sound) and sample == sound[at]:
            at += 1
        else:
            assert sample == 0, "something else was played"
            gap += 1
    assert at == len(sound)
    after = len(played) - np.flatnonzero(played)[-1] - (len(sound) - np.flatnonzero(sound)[-1])
    return gap - int(after)


def test_what_is_heard_is_what_the_service_gives_without_a_gap(page: Any, service: LocalService) -> None:
    page.select_option("#voice", "demo_male")
    page.fill("#text", SENTENCE)
    page.fill("#seed", "7")
    page.select_option("#cushion", label="all of it, or a minute")
    speak_to_the_end(page)
    sound = spoken(service, input=SENTENCE, voice="demo_male", seed=7)
    assert len(sound) > 24000
    played = loudspeaker(page)
    start = np.flatnonzero(played)[0] - np.flatnonzero(sound)[0]
    np.testing.assert_array_equal(played[start : start + len(sound)], sound)
    assert not played[start + len(sound) :].any()
    assert told(page, "heard") == len(sound)
    assert page.inner_text("#gaps") == "none"
    assert "without a gap" in page.inner_text("#status")


def test_a_stream_is_heard_while_it_comes_and_its_gaps_are_told(page: Any, service: LocalService) -> None:
    """How many gaps there are is the machine's matter; that none is hidden, and nothing lost, is the page's."""
    page.select_option("#voice", "demo_female")
    page.fill("#text", SENTENCE)
    page.fill("#seed", "8")
    speak_to_the_end(page)
    sound = spoken(service, input=SENTENCE, voice="demo_female", seed=8)
    assert told(page, "heard") == len(sound)
    assert gap_between(loudspeaker(page), sound) == told(page, "gaps")


def test_stop_is_heard_at_once_and_stops_all_stages(page: Any, service: LocalService) -> None:
    page.fill("#text", LONG)
    page.click("#speak")
    page.wait_for_selector("#heard[value]:not([value='']):not([value='0'])")
    # It plays before the answer is complete.
    assert page.is_hidden("#result")
    page.click("#stop")
    page.wait_for_selector("#status:has-text('Stopped')")
    # Not in this thread, in which the browser's driver has an event loop.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(wait_until, lambda: not any(running(service).values()), 10).result()
    played = len(loudspeaker(page))
    page.wait_for_timeout(500)
    assert len(loudspeaker(page)) == played < 24000 * 60
    assert page.is_visible("#again")


def test_an_uploaded_recording_is_spoken_like(page: Any, service: LocalService) -> None:
    page.check("[name=source][value=upload]", force=True)
    page.set_input_files("#file", PROMPT.with_suffix(".wav"))
    page.fill("#transcript", PROMPT.with_suffix(".txt").read_text().strip())
    page.fill("#text", SENTENCE)
    page.fill("#seed", "9")
    speak_to_the_end(page)
    with PROMPT.with_suffix(".wav").open("rb") as file:
        fields = {"input": SENTENCE, "seed": "9", "response_format": "pcm"}
        fields["prompt_text"] = PROMPT.with_suffix(".txt").read_text().strip()
        answer = httpx.post(f"{service.url}/v1/audio/speech", data=fields, files={"prompt_audio": file}, timeout=120)
    assert told(page, "heard") == len(answer.content) // 2 > 24000


def test_a_voice_from_the_microphone_is_spoken_with(page: Any) -> None:
    page.check("[name=source][value=record]", force=True)
    page.click("#record")
    page.wait_for_selector("#record-time:has-text('2.')")
    page.click("#record")
    page.wait_for_selector("#prompt-audio:visible")
    page.fill("#text", SENTENCE)
    speak_to_the_end(page)
    assert told(page, "heard") > 24000


def test_what_the_service_refuses_is_shown(page: Any) -> None:
    page.fill("#text", "... !!!")
    page.click("#speak")
    page.wait_for_selector("#error:visible")
    assert page.get_attribute("#text", "aria-invalid") == "true"
    assert page.inner_text("#status") == "Nothing was spoken."
