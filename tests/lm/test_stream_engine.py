"""Text that arrives while the engine runs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.request import StreamRequest, TokenEvent, TokenRequest

TEXT = [3, 14, 59, 26, 53, 89, 79, 32, 84, 62, 64, 33, 83, 27, 95, 28, 84, 19, 71, 69, 39, 93, 75]
PROMPT_TEXT = (10, 20, 30, 40, 50, 60, 70)
PROMPT_SPEECH = tuple(range(100, 2100, 50))
PROPERTY = settings(max_examples=8, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def stream(seed: int = 5, history: tuple[int, ...] = ()) -> StreamRequest:
    sampling = SamplingConfig(tau=1.0) if seed % 2 else SamplingConfig()
    return StreamRequest(PROMPT_TEXT, PROMPT_SPEECH, max_ratio=4.0, seed=seed, sampling=sampling, history=history)


def speak(
    engine: TorchEngine, request: StreamRequest, text: Sequence[int], portions: Sequence[int]
) -> tuple[list[int], list[int], TokenEvent]:
    """Tokens, the log (tokens and a fill id for each block that was closed early), and the last event."""
    number = engine.add(request)
    rest = list(text)
    log: list[int] = []
    last: TokenEvent | None = None
    for portion in [*portions, len(rest)]:
        engine.extend(number, rest[:portion], end=len(rest) <= portion)
        del rest[:portion]
        while engine.ready:
            for event in engine.step():
                if event.sequence == number:
                    log += [*event.tokens, *([engine.vocabulary.fill] if event.closed_block else [])]
                    last = event
        if not rest:
            break
    assert last is not None
    assert last.finished
    return [id_ for id_ in log if id_ != engine.vocabulary.fill], log, last


@PROPERTY
@given(seed=st.integers(0, 2**32), portions=st.lists(st.integers(0, 9), max_size=8))
def test_portions_do_not_matter(engine: TorchEngine, seed: int, portions: list[int]) -> None:
    whole = speak(engine, stream(seed), TEXT, [])
    assert speak(engine, stream(seed), TEXT, portions)[1] == whole[1]
    assert whole[0]


@PROPERTY
@given(seed=st.integers(0, 2**32), cut=st.floats(0, 1))
def test_replay_from_any_prefix_goes_on_the_same(engine: TorchEngine, seed: int, cut: float) -> None:
    _, log, last = speak(engine, stream(seed), TEXT, [])
    known = tuple(log[: int(cut * len(log))])
    _, rest, again = speak(engine, stream(seed, known), TEXT, [4, 4, 4])
    assert [*known, *rest] == log
    assert again.reason == last.reason


def test_company_does_not_matter(engine: TorchEngine) -> None:
    """Streams and a complete text in one batch, text arriving in turns."""
    expected = [speak(engine, stream(seed), TEXT, [])[0] for seed in range(4)]
    vocabulary = engine.vocabulary
    prompt = (vocabulary.sos, *vocabulary.text(TEXT), vocabulary.task)
    complete = TokenRequest(prompt, max_tokens=60, min_tokens=60, seed=9)
    alone = list(engine.generate(complete))
    numbers = [engine.add(stream(seed)) for seed in range(4)]
    tokens: dict[int, list[int]] = {number: [] for number in [*numbers, engine.add(complete)]}
    left = {number: list(TEXT) for number in numbers}
    while engine.pending:
        for turn, number in enumerate(list(left)):
            engine.extend(number, left[number][: turn + 1], end=len(left[number]) <= turn + 1)
            del left[number][: turn + 1]
            if not left[number]:
                del left[number]
        for event in engine.step():
            tokens[event.sequence] += event.tokens
    assert list(tokens.values()) == [*expected, alone]


def test_waits_for_text_without_working(engine: TorchEngine) -> None:
    number = engine.add(stream())
    assert (engine.pending, engine.ready, engine.step()) == (1, False, [])
    engine.extend(number, TEXT[:1])
    assert not engine.ready
    engine.extend(number, TEXT[1:9])
    assert engine.ready
    engine.cancel(number)


def test_a_text_that_never_came_is_finished_without_tokens(engine: TorchEngine) -> None:
    number = engine.add(stream())
    engine.extend(number, [], end=True)
    assert engine.step() == [TokenEvent(number, (), True, "length")]


def test_only_running_streams_can_be_extended(engine: TorchEngine) -> None:
    complete = engine.add(TokenRequest((engine.vocabulary.sos,), max_tokens=5))
    for number in (complete, complete + 100):
        with pytest.raises(EngineError, match="not a running stream"):
            engine.extend(number, [1])
    engine.cancel(complete)


def test_unknown_text_is_refused_and_leaves_the_stream_running(engine: TorchEngine) -> None:
    number = engine.add(stream())
    engine.extend(number, TEXT[:10])
    with pytest.raises(InputError):
        engine.extend(number, [1, 10**6])
    engine.extend(number, TEXT[10:], end=True)
    tokens = []
    while engine.pending:
        tokens += [id_ for event in engine.step() for id_ in event.tokens]
    assert tokens == speak(engine, stream(), TEXT, [])[0]


def test_text_beyond_the_context_is_refused(small_context: TorchEngine) -> None:
    with pytest.raises(InputError, match="at most 64"):
        small_context.add(StreamRequest(tuple(range(30)), tuple(range(34))))
    number = small_context.add(StreamRequest(tuple(range(10)), tuple(range(20))))
    with pytest.raises(InputError, match="at most 64"):
        small_context.extend(number, range(34))
    small_context.extend(number, range(33), end=True)
    events = []
    while small_context.pending:
        events += small_context.step()
    assert (events[-1].reason, events[-1].error) == ("length", None)


def test_a_history_that_does_not_fit_fails_its_sequence_only(engine: TorchEngine) -> None:
    """A fill id where the last block has begun, and a history that goes on after the text's end."""
    fill = engine.vocabulary.fill
    expected = speak(engine, stream(), TEXT, [])[0]
    for history in ((1, 2, fill), tuple(range(50))):
        bad = engine.add(StreamRequest(history=history, max_ratio=4.0))
        good = engine.add(stream())
        engine.extend(bad, [1, 2], end=True)
        engine.extend(good, TEXT, end=True)
        tokens: list[int] = []
        errors = []
        while engine.pending:
            for event in engine.step():
                if event.sequence == good:
                    tokens += event.tokens
                errors += [event.error] if event.sequence == bad else []
        assert tokens == expected
        assert len(errors) == 1
        assert isinstance(errors[0], EngineError)
