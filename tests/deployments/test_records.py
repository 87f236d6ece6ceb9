"""One line for each request and each utterance, whatever way it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from ray._common.formatters import JSONFormatter
from ray.serve.exceptions import RequestCancelledError

from cosyvoice_core.errors import InputError
from deployments.ingress.request_record import RequestRecord, delivery_of
from deployments.mailbox import OverloadedError
from deployments.messages import FirstAudio, SpeakCall, StreamCutError, UtteranceTask
from deployments.metrics import ListenerMetrics
from deployments.quotas.ledger import QuotaError
from deployments.records import UtteranceRecord
from deployments.text_source import TextSource
from deployments.timing import RequestWatch
from tests.deployments.test_playback import utterance


class Lines(logging.Handler):
    """Lines as Serve's JSON logs hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JSONFormatter())
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(self.format(record))

    @property
    def fields(self) -> dict[str, object]:
        (line,) = self.text
        assert "\n" not in line
        found: dict[str, object] = json.loads(line)
        return found


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("ray.serve")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


ENDS = [
    (None, True, "ok", None),
    (GeneratorExit(), True, "ok", None),
    (GeneratorExit(), False, "cancelled", None),
    (asyncio.CancelledError(), False, "cancelled", None),
    (RequestCancelledError("id"), False, "cancelled", None),
    (InputError("input", "broke off"), False, "refused", "invalid"),
    (QuotaError("streams", 2, 1.0), False, "refused", "quota"),
    (OverloadedError("full"), False, "refused", "overload"),
    (QuotaError("streams", 2, 1.0), False, "refused", "quota"),
    (StreamCutError("cut"), False, "failed", "StreamCutError"),
    (ValueError("a secret of the caller's"), False, "failed", "ValueError"),
]


@pytest.mark.parametrize(("error", "complete", "outcome", "reason"), ENDS)
def test_an_utterance_in_a_stage(
    lines: Lines, error: BaseException | None, complete: bool, outcome: str, reason: str | None
) -> None:
    record = UtteranceRecord("lm", UtteranceTask("request-7", utterance(3), history=(1, 2)), "tokens")
    try:
        with record:
            record.made(5, last=False)
            record.made(4, last=complete)
            if error is not None:
                raise error
    except BaseException as raised:  # noqa: BLE001 - of the test's own making
        assert raised is error
    fields = lines.fields
    assert {"event": "utterance", "stage": "lm", "request": "request-7", "segment": 3}.items() <= fields.items()
    assert (fields["tokens"], fields["hops"], fields["known_tokens"]) == (9, 2, 2)
    assert (fields["outcome"], fields.get("reason")) == (outcome, reason)
    assert "secret" not in lines.text[0]


@pytest.mark.parametrize(("error", "complete", "outcome", "reason"), ENDS)
def test_a_request(lines: Lines, error: BaseException | None, complete: bool, outcome: str, reason: str | None) -> None:
    try:
        with RequestRecord(ListenerMetrics(), RequestWatch("id"), "listener", caller="desk") as record:
            record.first_audio(FirstAudio("id", (("lm", 0.25), ("flow-wait", 0.125))))
            record.chunk(0.5)
            record.replayed()
            record.chunk(0.0, last=complete)
            if error is not None:
                raise error
    except BaseException as raised:  # noqa: BLE001 - of the test's own making
        assert raised is error
    fields = lines.fields
    assert {"event": "request", "request": "id", "delivery": "listener", "caller": "desk"}.items() <= fields.items()
    assert (fields["first_audio_s"], fields["first_audio_flow_wait_s"]) == (0.375, 0.125)
    assert (fields["audio_s"], fields["chunks"], fields["replays"]) == (0.5, 1, 1)
    assert (fields["outcome"], fields.get("reason")) == (outcome, reason)


def test_strings_of_callers_stay_on_their_line(lines: Lines) -> None:
    name = 'desk"\n{"event": "request"}\x1b[31m\u2028'
    with RequestRecord(ListenerMetrics(), RequestWatch("id"), "file", caller=name):
        pass
    assert lines.fields["caller"] == name
    message = str(lines.fields["message"])
    assert message.isascii()
    assert message.isprintable()


@pytest.mark.parametrize(
    ("call", "streamed", "delivery"),
    [
        (SpeakCall("text"), True, "listener"),
        (SpeakCall("text"), False, "file"),
        (SpeakCall("text", realtime=False), True, "file"),
        (SpeakCall(TextSource("mailbox", "text")), True, "growing"),
    ],
)
def test_who_is_listening(call: SpeakCall, streamed: bool, delivery: str) -> None:
    assert delivery_of(call, streamed=streamed) == delivery
