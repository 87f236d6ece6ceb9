"""The language model as it is trained is the one that serves, and reads what the served plans lay out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_core.config import LMConfig
from cosyvoice_core.lm.body import Span, SpeechBody
from cosyvoice_core.lm.interleave import Interleave
from cosyvoice_core.lm.merge import merge
from cosyvoice_core.lm.plan import CompleteText, Done, Plan, Predict
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from tools.demo_voice.codec.train import ALIGNED, HEARD
from tools.demo_voice.lm.guide import looking_loss, places_to_look, words_said
from tools.demo_voice.lm.layout import IGNORED, Example, bi, fits_bi, noisy, uni
from tools.demo_voice.lm.network import WATCHED, SpeechNetwork
from tools.demo_voice.lm.train import Examples, LMMix, edit_distance, next_token_loss
from tools.demo_voice.run import Run
from tools.demo_voice.trainer import Part

CONFIG = LMConfig(
    hidden=48, layers=3, heads=4, kv_heads=2, head_dim=16, intermediate=64, text_rows=40, speech_tokens=70
)
VOCABULARY = SpeechVocabulary.cosyvoice2(CONFIG.text_rows, CONFIG.speech_tokens)


def test_training_and_serving_give_the_same_scores() -> None:
    torch.manual_seed(0)
    network = SpeechNetwork(CONFIG)
    for parameter in network.parameters():
        # Norms and biases start at one and zero, which would hide one that is forgotten.
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    body = SpeechBody(merge(network.state_dict(), CONFIG, VOCABULARY), CONFIG)
    ids = [VOCABULARY.sos, *VOCABULARY.text([3, 1, 2]), VOCABULARY.task, *range(20)]
    served = body.logits(body.forward(ids, [Span(body.new_cache(), 0, len(ids))]))
    with torch.inference_mode():
        # Behind a longer sequence's padding nothing changes.
        trained = network(torch.tensor([[*ids, 0, 0, 0]]))[0, : len(ids)]
    assert (served - trained).abs().max() < 1e-5
    assert served.std() > 0.01


def driven(plan: Plan, speech: list[int]) -> list[tuple[int, int]]:
    """Let a plan speak `speech`; what it predicts from: (place in its context, id predicted), eos included."""
    said = list(speech)
    predicted = []
    while not isinstance(action := plan.next(), Done):
        assert isinstance(action, Predict)
        token = said.pop(0) if said else VOCABULARY.eos
        predicted.append((len(plan.context) - 1, token))
        plan.produced(token)
    assert not said
    return predicted


def check(example: Example, plan: Plan, speech: list[int]) -> None:
    """The plan's context is the example's ids, and what it predicts are the labels; fill alone is added to them."""
    predicted = dict(driven(plan, speech))
    assert list(plan.context) == list(example.ids)
    labels = {place: label for place, label in enumerate(example.labels) if label not in (IGNORED, VOCABULARY.fill)}
    assert labels == predicted


text_ids = st.lists(st.integers(0, CONFIG.text_rows - 1), min_size=1, max_size=23)


@given(text_ids, st.integers(0, 60), st.integers(0, 12))
def test_uni_is_the_plan_of_a_complete_text(text: list[int], spoken: int, prompt: int) -> None:
    speech = np.random.default_rng(spoken).integers(CONFIG.speech_tokens, size=spoken + prompt).tolist()
    example = uni(VOCABULARY, text, speech, prompt)
    context = [VOCABULARY.sos, *VOCABULARY.text(text), VOCABULARY.task, *speech[:prompt]]
    check(example, CompleteText(VOCABULARY, context, 0, 10_000), speech[prompt:])


@given(text_ids, st.integers(0, 40), st.integers(0, 9), st.booleans())
def test_bi_is_the_plan_of_a_text_that_arrives(text: list[int], more: int, prompt_text: int, prompted: bool) -> None:
    wording = [7] * prompt_text * prompted
    total = (len(text) + len(wording)) // 5 * 15 + more
    prompt = min(total, 4 * len(wording))
    speech = np.random.default_rng(more).integers(CONFIG.speech_tokens, size=total).tolist()
    example = bi(VOCABULARY, [*wording, *text], speech, prompt)
    plan = Interleave(VOCABULARY, wording, speech[:prompt], max_ratio=1e6)
    plan.feed_text(text)
    plan.end_text()
    check(example, plan, speech[prompt:])


def test_fill_is_predicted_behind_every_whole_block() -> None:
    example = bi(VOCABULARY, [1] * 11, list(range(40)))
    filled = [place for place, label in enumerate(example.labels) if label == VOCABULARY.fill]
    assert filled == [20, 40]
    assert [example.ids[place] for place in filled] == [14, 29]


def test_speech_too_short_for_its_blocks_is_refused() -> None:
    assert not fits_bi(10, 29)
    assert fits_bi(9, 15)
    with pytest.raises(ValueError, match="need 30 speech tokens"):
        bi(VOCABULARY, [1] * 10, [1] * 29)


def test_noise_changes_what_is_read_and_not_what_is_predicted() -> None:
    example = uni(VOCABULARY, [1, 2, 3], [5] * 200)
    changed = noisy(example, 0.5, VOCABULARY, 60, np.random.default_rng(0))
    assert changed.labels == example.labels
    assert changed.ids[:5] == example.ids[:5]
    assert 60 < sum(one != other for one, other in zip(changed.ids, example.ids, strict=True)) < 140


def test_an_example_behind_a_prompt_hears_the_prompt_and_predicts_the_rest(coded: Run) -> None:
    corpus, book, tokenizer = coded.corpus, coded.book(), coded.text_tokenizer()
    config = coded.model().lm
    examples = Examples(corpus, tokenizer, book, config, LMMix())
    prompt, speech = corpus.derived(HEARD, 20), corpus.derived(ALIGNED, 21)
    example = examples.example(21, 20)
    predicted = [label for label in example.labels if label != IGNORED]
    assert len(predicted) == len(speech) + 1
    assert list(example.ids[-len(speech) - len(prompt) : -len(speech)]) == prompt.tolist()
    # Occurrences may alternate the other way round behind a prompt; phones stay.
    assert np.array_equal(book.phone_of(np.array(predicted[:-1])), book.phone_of(speech))
    # Said instead of heard, the first one is predicted too, and is as the teacher said it.
    both = examples.example(21, 20, joined=True)
    predicted = [label for label in both.labels if label != IGNORED]
    assert predicted[: len(prompt)] == corpus.derived(ALIGNED, 20).tolist()
    assert len(predicted) == len(prompt) + len(speech) + 1


def test_the_loss_falls(coded: Run) -> None:
    config = replace(coded.model().lm, hidden=32, heads=2, head_dim=16, intermediate=48)
    examples = Examples(coded.corpus, coded.text_tokenizer(), coded.book(), config, LMMix())
    drawn = [example for example, _ in examples.draw(3, np.random.default_rng(0))]
    torch.manual_seed(0)
    network = SpeechNetwork(config)
    part = Part.adamw(network, 5e-3)
    losses = []
    for _ in range(12):
        loss, _ = next_token_loss(network, drawn, torch.device("cpu"))
        losses.append(float(loss.detach()))
        part.descend(loss, 3.0)
    assert losses[-1] < 0.8 * losses[0]


def test_each_speech_token_knows_the_text_of_its_word(coded: Run) -> None:
    tokenizer = coded.text_tokenizer()
    found = 0
    for utterance in coded.corpus.utterances[:12]:
        text = tokenizer.encode(utterance.text)
        said = words_said(utterance, text, tokenizer)
        for word in utterance.words:
            first, last = said[min(int((word.start + word.stop) / 2 * 25), utterance.tokens - 1)]
            if last == 0:
                continue
            found += 1
            # A token may begin with the blank before the word, or end with the mark behind it.
            assert word.label in tokenizer.decode(text[first:last])
            assert len(tokenizer.decode(text[first + 1 : last])) < len(word.label)
    assert found > 40


def test_attention_is_led_to_the_word_that_is_said_once_its_text_is_there() -> None:
    said = np.array([[0, 2]] * 10 + [[2, 5]] * 10 + [[0, 0]] * 3 + [[5, 7]] * 2)
    text, speech = list(range(7)), list(range(25))
    for example in (uni(VOCABULARY, text, speech), bi(VOCABULARY, text, speech)):
        places = places_to_look(example, said, VOCABULARY)
        for place, label in enumerate(example.labels):
            looked = [VOCABULARY.text_offset + at for at in range(*said[label])] if 0 <= label < 25 else []
            assert [example.ids[at] for at in np.flatnonzero(places[place])] == looked
    # Words whose text comes later are not looked at before.
    early = places_to_look(bi(VOCABULARY, text, speech), said[::-1], VOCABULARY)
    assert not np.triu(early, 1).any()
    assert early.sum() < places.sum()
    exact = torch.from_numpy(places)[None]
    all_there = exact / exact.sum(2, keepdim=True).clamp(min=1)
    assert float(looking_loss(all_there[:, None], exact)) < 1e-4
    assert float(looking_loss(0.5 * all_there[:, None], exact)) == pytest.approx(np.log(2), abs=1e-4)


def test_watched_attention_is_causal_and_can_be_led() -> None:
    torch.manual_seed(0)
    network = SpeechNetwork(CONFIG)
    example = uni(VOCABULARY, list(range(6)), list(range(30)))
    said = np.stack([np.arange(30) // 5, np.arange(30) // 5 + 1], 1)
    places = torch.from_numpy(places_to_look(example, said, VOCABULARY))[None]
    part = Part.adamw(network, 5e-3)
    losses = []
    for _ in range(30):
        watched: list[torch.Tensor] = []
        network(torch.tensor([example.ids]), watched)
        assert len(watched) == len(WATCHED)
        assert not watched[0].triu(1).any()
        loss = looking_loss(torch.stack(watched, 1), places)
        part.descend(loss, 3.0)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_edit_distance() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3
    assert edit_distance("abc", "abc") == 0
