"""Texts, alignment, pitch, and the teacher's events."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.demo_voice.data.alignment import SILENCE, Segment, per_frame, phone_segments, token_runs, word_segments
from tools.demo_voice.data.corpus import Corpus
from tools.demo_voice.data.espeak import Espeak, EspeakError, Mark, Spoken
from tools.demo_voice.data.make import DataPlan, make_corpus
from tools.demo_voice.data.pitch import pitch_of
from tools.demo_voice.data.render import Manner, render
from tools.demo_voice.data.statistics import distance, voice_statistics
from tools.demo_voice.data.texts import EXAMPLES, TEMPLATES, make_texts
from tools.demo_voice.data.voices import SAVED, TRAINING, UNSEEN, Voice
from tools.demo_voice.data.words import adverb, continuous, past, plural, word_lists
from tools.demo_voice.run import Run


def test_texts_are_the_same_for_a_seed_and_hold_nothing_out_that_is_trained_on() -> None:
    texts = make_texts(200, 30, seed=4)
    assert texts == make_texts(200, 30, seed=4)
    assert texts.training != make_texts(200, 30, seed=5).training
    assert (len(texts.training), len(texts.held_out)) == (200, 30)
    assert not set(texts.training) & set(texts.held_out)
    assert texts.held_out[: len(EXAMPLES)] == EXAMPLES


def test_texts_are_as_the_language_model_reads_them() -> None:
    texts = make_texts(300, 20, seed=0)
    for text in (*texts.training, *texts.held_out):
        assert not re.search(r"[0-9{}]", text)
        assert text[-1] in ".?!"
    assert texts.word_types > 600


def test_every_slot_has_its_words() -> None:
    lists = word_lists("en")
    counted = {"number", "digit", "hour", "minute", "day", "ordinal", "year"}
    for template in TEMPLATES["en"][0]:
        assert set(re.findall(r"\{(\w+)\}", template)) <= set(lists) | counted, template
    with pytest.raises(ValueError, match="no templates for 'xx'"):
        make_texts(1, 1, 0, "xx")


def test_forms_of_words() -> None:
    assert [plural(word) for word in ("box", "city", "day", "hat")] == ["boxes", "cities", "days", "hats"]
    assert [past(word) for word in ("dance", "try", "play")] == ["danced", "tried", "played"]
    assert [continuous(word) for word in ("dance", "see", "try")] == ["dancing", "seeing", "trying"]
    adverbs = [adverb(word) for word in ("gentle", "happy", "quick", "full", "basic", "shy")]
    assert adverbs == ["gently", "happily", "quickly", "fully", "basically", "shyly"]
    words = {word for words in word_lists("en").values() for phrase in words for word in phrase.lower().split()}
    assert len(words) > 3000


def test_voices_for_judging_are_not_taught() -> None:
    assert len(TRAINING) >= 20
    assert len({voice.espeak_name for voice in (*TRAINING, *UNSEEN)}) == len(TRAINING) + len(UNSEEN)
    assert len({voice.name for voice in (*TRAINING, *UNSEEN)}) == len(TRAINING) + len(UNSEEN)


SPOKEN = Spoken(
    samples=np.zeros(1000, np.int16),
    rate=1000,
    phones=(
        Mark(100, "h"),
        Mark(150, "aI"),
        Mark(400, "_:"),
        Mark(500, "_"),
        Mark(600, "j"),
        Mark(600, "u:"),
        Mark(900, "_"),
    ),
    words=(Mark(100, first_letter=0, letters=2), Mark(600, first_letter=4, letters=3)),
)


def test_segments_are_the_teachers_marks_without_gaps() -> None:
    segments = phone_segments(SPOKEN, 50, 1000)
    assert [segment.label for segment in segments] == [SILENCE, "h", "aI", SILENCE, "u:", SILENCE]
    assert [segment.start for segment in segments] == pytest.approx([0.0, 0.05, 0.1, 0.35, 0.55, 0.85])
    assert [segment.stop for segment in segments] == pytest.approx([0.05, 0.1, 0.35, 0.55, 0.85, 0.95])


def test_words_end_at_the_next_word_or_pause() -> None:
    words = word_segments(SPOKEN, "Hi, you.", 50, 1000)
    assert [(word.label, word.start, word.stop) for word in words] == [
        ("Hi", pytest.approx(0.05), pytest.approx(0.35)),
        ("you", pytest.approx(0.55), pytest.approx(0.85)),
    ]
    assert per_frame(words, 4, 4.0).tolist() == [0, -1, 1, -1]


@given(st.lists(st.floats(0.005, 0.4), min_size=1, max_size=40), st.integers(0, 10))
def test_every_phone_has_a_token_and_tokens_stay_where_they_are(lengths: list[float], more: int) -> None:
    ends = np.cumsum(lengths)
    segments = [
        Segment(str(at), float(end - size), float(end))
        for at, (end, size) in enumerate(zip(ends, lengths, strict=True))
    ]
    tokens = max(int(np.ceil(ends[-1] * 25)), len(lengths)) + more
    kept, runs = token_runs(segments, tokens)
    assert len(kept) == len(segments)
    assert runs.min() >= 1
    assert runs.sum() == tokens
    # Where every phone lasts a token there is nothing to move but the rounding.
    if min(lengths) >= 0.08:
        assert np.abs(np.cumsum(runs)[:-1] / 25 - ends[:-1]).max(initial=0.0) <= 0.021


def test_phones_beyond_the_number_of_tokens_are_left_out_shortest_first() -> None:
    segments = [Segment("a", 0.0, 0.1), Segment("b", 0.1, 0.11), Segment("c", 0.11, 0.3)]
    kept, runs = token_runs(segments, 2)
    assert [segment.label for segment in kept] == ["a", "c"]
    assert runs.tolist() == [1, 1]


@pytest.mark.parametrize("hertz", [75.0, 110.0, 190.0, 330.0])
def test_pitch_of_a_tone_with_overtones(hertz: float) -> None:
    time = np.arange(24000) / 24000
    tone = sum(np.sin(2 * np.pi * hertz * n * time) / n for n in range(1, 8)) * 0.1
    wave = np.concatenate([np.zeros(12000), tone]).astype(np.float32)
    pitch = pitch_of(wave)
    assert len(pitch) == len(wave) // 480
    assert not pitch[:20].any()
    assert np.median(pitch[30:70]) == pytest.approx(hertz, rel=0.02)
    assert (np.abs(pitch[30:70] / hertz - 1) < 0.05).mean() > 0.95


def test_the_library_reports_the_phones_and_words_of_what_it_says(espeak: Espeak) -> None:
    spoken = espeak.say("Good morning, Anna.", SAVED[0])
    assert [mark.phone for mark in spoken.phones][:4] == ["g", "U", "d", "m"]
    assert ["Good morning, Anna."[w.first_letter : w.first_letter + w.letters] for w in spoken.words] == [
        "Good",
        "morning",
        "Anna",
    ]
    samples = [mark.sample for mark in spoken.phones]
    assert samples == sorted(samples)
    assert samples[-1] <= len(spoken.samples)


def test_an_unknown_voice_is_refused(espeak: Espeak) -> None:
    with pytest.raises(EspeakError, match="no voice variant 'nobody'"):
        espeak.say("Hello.", Voice("nobody", "nobody", 50))


def test_every_voice_is_there_and_sounds_unlike_the_plain_one(espeak: Espeak) -> None:
    plain = espeak.say("Ah.", SAVED[0]).samples
    for voice in (*TRAINING[1:], *UNSEEN):
        samples = espeak.say("Ah.", voice).samples
        assert np.abs(samples).max() > 1000, voice
        assert len(samples) != len(plain) or np.abs(samples - plain).max() > 0, voice


def test_texts_of_a_language_without_a_voice_are_refused() -> None:
    assert SAVED[1].speaking("en").espeak_name == "en-us+f3"
    with pytest.raises(ValueError, match="no espeak-ng voice is known for 'xx'"):
        SAVED[1].speaking("xx")


def test_an_utterance_is_aligned_to_the_sample(espeak: Espeak) -> None:
    """The pause that the teacher reports between two words is where the sound is quiet."""
    text = "Stop, please."
    utterance, features = render(espeak, text, SAVED[0], Manner.plain(SAVED[0]), np.random.default_rng(0))
    assert len(features.wave) == 960 * utterance.tokens
    assert [word.label for word in utterance.words] == ["Stop", "please"]
    inner = [segment for segment in utterance.phones[1:-1] if segment.label == SILENCE]
    assert len(inner) == 1
    first, last = int((inner[0].start + 0.06) * 24000), int((inner[0].stop - 0.01) * 24000)
    quiet, whole = np.abs(features.wave[first:last]).max(), np.abs(features.wave).max()
    assert quiet < 0.05 * whole
    assert utterance.phones[0].label == SILENCE
    assert utterance.phones[0].stop == pytest.approx(0.08, abs=0.001)


def test_statistics_tell_voices_apart(espeak: Espeak) -> None:
    def found(text: str, voice: Voice) -> np.ndarray:
        return voice_statistics(render(espeak, text, voice, Manner.plain(voice), np.random.default_rng(0))[1].wave)

    deep, female = SAVED[2], SAVED[1]
    text, other = "The weather is nice and the sun is warm.", "What time does the train leave for Paris?"
    assert distance(found(text, deep), found(other, deep)) < distance(found(text, deep), found(other, female))
    assert found(text, female)[0] - found(text, deep)[0] > 0.3


def test_shards_are_kept_and_belong_to_one_plan(run: Run, corpus: Corpus) -> None:
    folder = run.work / "data"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    again = make_corpus(folder, run.scale.data, run.seed)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")} == before
    assert again.utterances == corpus.utterances
    with pytest.raises(ValueError, match="data of another plan"):
        make_corpus(folder, DataPlan(5, 5), run.seed)


def test_a_corpus_gives_each_utterance_its_own(corpus: Corpus) -> None:
    assert len(corpus) == 60
    assert len(corpus.numbers(held_out=True)) == 12
    for number in (0, 29, 30, 59):
        tokens = corpus.utterances[number].tokens
        assert corpus.mel(number).shape == (2 * tokens, 80)
        assert corpus.log_mel(number).shape == (4 * tokens, 128)
        assert corpus.utterances[number].phones[-1].stop == pytest.approx(tokens / 25)
        # The stored pitch is that of the stored wave, so neither belongs to another utterance.
        assert np.abs(pitch_of(corpus.wave(number)) - corpus.pitch(number)).mean() < 2.0


def test_a_corpus_that_is_not_there_names_its_stage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the stage `data` first"):
        Corpus(tmp_path)
