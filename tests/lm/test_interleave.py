"""The bi-stream plan: the layout it builds, and that arrival in portions changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.lm.interleave import Interleave
from cosyvoice_core.lm.plan import Done, Predict, Wait
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

VOCABULARY = SpeechVocabulary.cosyvoice2(40, speech_tokens=30)
TEXT_BLOCK, SPEECH_BLOCK = 5, 15
TEXT = st.lists(st.integers(0, 39), max_size=40)
SPEECH = st.lists(st.integers(0, 29), max_size=50)


@dataclass
class Run:
    """A plan with a stand-in for the model: its choice depends on the context alone and closes now and then."""

    plan: Interleave
    reason: str | None = None

    def drive(self) -> None:
        while isinstance(action := self.plan.next(), Predict):
            assert action.budget >= 1
            word = hash(tuple(self.plan.context))
            closes = action.closing is not None and word % 11 == 0
            self.plan.produced(action.closing if closes else word % VOCABULARY.speech_tokens)
        if isinstance(action, Done):
            self.reason = action.reason


def run(text: list[int], prompt_text: list[int], prompt_speech: list[int], portions: list[int]) -> Run:
    state = Run(Interleave(VOCABULARY, prompt_text, prompt_speech))
    rest = list(text)
    for portion in portions:
        state.plan.feed_text(rest[:portion])
        del rest[:portion]
        state.drive()
    state.plan.feed_text(rest)
    state.plan.end_text()
    state.drive()
    return state


@settings(max_examples=150, derandomize=True)
@given(TEXT, TEXT, SPEECH, st.lists(st.integers(0, 9), max_size=12))
def test_portions_do_not_matter(
    text: list[int], prompt_text: list[int], prompt_speech: list[int], portions: list[int]
) -> None:
    whole = run(text, prompt_text, prompt_speech, [])
    parts = run(text, prompt_text, prompt_speech, portions)
    one_by_one = run(text, prompt_text, prompt_speech, [1] * len(text))
    assert whole.reason in ("stop", "length")
    assert parts.plan.context == whole.plan.context == one_by_one.plan.context
    assert parts.plan.spoken == whole.plan.spoken == one_by_one.plan.spoken


@settings(max_examples=150, derandomize=True)
@given(TEXT.filter(bool), TEXT, SPEECH)
def test_the_context_is_blocks_of_text_and_speech(
    text: list[int], prompt_text: list[int], prompt_speech: list[int]
) -> None:
    plan = run(text, prompt_text, prompt_speech, [1] * len(text)).plan
    assert plan.context[0] == VOCABULARY.sos
    assert plan.context.count(VOCABULARY.task) == 1
    task = plan.context.index(VOCABULARY.task)
    blocks, last = plan.context[1:task], plan.context[task + 1 :]
    assert [id_ for id_ in blocks if id_ >= VOCABULARY.text_offset] == VOCABULARY.text(prompt_text + text)
    speech = [id_ for id_ in blocks if id_ < VOCABULARY.text_offset] + last
    assert speech == prompt_speech + plan.spoken
    assert max(speech, default=0) < VOCABULARY.speech_tokens
    laid_out = 0
    while blocks:
        size = next((i for i, id_ in enumerate(blocks) if id_ < VOCABULARY.text_offset), len(blocks))
        assert size % TEXT_BLOCK == 0 or size == len(blocks)
        spoken = next((i for i, id_ in enumerate(blocks[size:]) if id_ >= VOCABULARY.text_offset), len(blocks) - size)
        assert spoken <= SPEECH_BLOCK
        if laid_out + SPEECH_BLOCK <= len(prompt_speech) and size == TEXT_BLOCK and spoken:
            assert spoken == SPEECH_BLOCK
        laid_out += spoken
        blocks = blocks[size + spoken :]
    assert len(plan.spoken) <= 20 * len(text)


def test_waits_for_the_first_text_even_if_the_prompt_would_do() -> None:
    plan = Interleave(VOCABULARY, range(10), range(12))
    assert plan.next() == Wait()
    plan.feed_text([1])
    assert plan.next() == Predict(VOCABULARY.fill, 3)


def test_a_prompt_of_whole_blocks_asks_for_text_next() -> None:
    plan = Interleave(VOCABULARY, range(10), range(15))
    plan.feed_text([1])
    assert plan.next() == Predict(VOCABULARY.fill, 15)
    assert plan.context == [VOCABULARY.sos, *VOCABULARY.text(range(5)), *range(15), *VOCABULARY.text(range(5, 10))]


def test_leftover_prompt_speech_follows_task() -> None:
    plan = Interleave(VOCABULARY, [1, 2], range(20))
    plan.feed_text([3, 4, 5, 6])
    plan.end_text()
    assert plan.next() == Predict(VOCABULARY.eos, 80)
    first = [VOCABULARY.sos, *VOCABULARY.text(range(1, 6)), *range(15)]
    assert plan.context == [*first, *VOCABULARY.text([6]), VOCABULARY.task, *range(15, 20)]


def test_the_end_of_the_text_does_not_cut_a_block_short() -> None:
    plan = Interleave(VOCABULARY)
    plan.feed_text(range(6))
    assert plan.next() == Predict(VOCABULARY.fill, 15)
    plan.produced(3)
    plan.end_text()
    assert plan.next() == Predict(VOCABULARY.fill, 14)
    plan.produced(VOCABULARY.fill)
    assert plan.next() == Predict(VOCABULARY.eos, 119)
    assert plan.context == [VOCABULARY.sos, *VOCABULARY.text(range(5)), 3, *VOCABULARY.text([5]), VOCABULARY.task]


def test_preamble_is_never_interleaved() -> None:
    vocabulary = SpeechVocabulary.cosyvoice3(40, speech_tokens=30)
    plan = Interleave(vocabulary, [1], preamble_ids=[7, 8, 9])
    plan.feed_text([2, 3])
    assert plan.next() == Wait()
    assert plan.context == [vocabulary.sos, *vocabulary.text([7, 8, 9])]


def test_lengths_are_bounded_by_the_text() -> None:
    plan = Interleave(VOCABULARY, min_ratio=1.5, max_ratio=2.5)
    plan.feed_text([1, 2])
    plan.end_text()
    assert plan.next() == Predict(None, 3)
    for token in range(3):
        plan.produced(token)
    assert plan.next() == Predict(VOCABULARY.eos, 2)
    plan.produced(3)
    plan.produced(4)
    assert plan.next() == Done("length")


def test_a_text_without_a_token_is_done_at_once() -> None:
    plan = Interleave(VOCABULARY, range(20), range(3))
    plan.end_text()
    assert plan.next() == Done("length")
    assert plan.spoken == []


def test_only_what_is_legal_is_taken() -> None:
    plan = Interleave(VOCABULARY)
    with pytest.raises(EngineError):
        plan.produced(1)
    plan.feed_text(range(5))
    for id_ in (VOCABULARY.eos, VOCABULARY.eos + 1, VOCABULARY.sos, -1):
        with pytest.raises(EngineError):
            plan.produced(id_)
    plan.produced(VOCABULARY.fill)
    plan.end_text()
    with pytest.raises(EngineError):
        plan.produced(VOCABULARY.fill)
    assert not plan.produced(VOCABULARY.eos)
    assert plan.next() == Done("stop")
    with pytest.raises(EngineError):
        plan.produced(1)


def test_text_is_checked_and_must_not_follow_its_end() -> None:
    plan = Interleave(VOCABULARY)
    with pytest.raises(InputError):
        plan.feed_text([40])
    plan.end_text()
    with pytest.raises(ValueError, match="after its end"):
        plan.feed_text([1])
