"""Speech tokens: the code book, and that the ONNX file is network and code book exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cosyvoice_core.voice.speech_tokenizer import SpeechTokenizer
from tools.demo_voice.codec.codes import LEVELS, CodeBook, relative_pitch, repeats
from tools.demo_voice.codec.network import TokenizerConfig, TokenizerNetwork
from tools.demo_voice.codec.onnx_file import write_tokenizer
from tools.demo_voice.codec.train import ALIGNED, HEARD, ONNX, labels_of
from tools.demo_voice.data.alignment import SILENCE, Segment
from tools.demo_voice.run import Run

BOOK = CodeBook((SILENCE, "a", "t"), (12, 4, 2), (False, True, False), (-1.0, 1.0))


def test_codes_are_different_for_everything_they_tell_apart() -> None:
    assert BOOK.size == 24 + 24 + 4
    assert BOOK.rows == 64
    start = np.array([True, False, True, False, True])
    codes = BOOK.codes(np.array([1, 1, 2, 2, 1]), start, np.array([0, 0, 2, 2, 0]))
    # a (first time, low), t (no levels), a (second time).
    assert codes.tolist() == [24, 27, 48, 49, 24 + 12]
    assert BOOK.phone_of(codes).tolist() == [1, 1, 2, 2, 1]


def test_a_long_phone_goes_round_through_its_last_places() -> None:
    codes = BOOK.codes(np.ones(9, np.int64), np.arange(9) == 0, np.ones(9, np.int64))
    assert ((codes - 25) // LEVELS).tolist() == [0, 1, 2, 3, 2, 3, 2, 3, 2]


def test_silence_of_any_length_repeats_nothing_among_ten() -> None:
    codes = BOOK.codes(np.zeros(60, np.int64), np.arange(60) == 0, np.zeros(60, np.int64))
    assert repeats(codes) == 0.0


def test_alignment_to_labels() -> None:
    segments = (Segment(SILENCE, 0.0, 0.08), Segment("a", 0.08, 0.2), Segment("t", 0.2, 0.22), Segment("a", 0.22, 0.4))
    pitch = np.array([0, 0, 0, 0, *[100] * 6, 0, 0, *[150] * 8], np.float32)
    labels = BOOK.aligned(segments, 10, pitch)
    assert labels.phone.tolist() == [0, 0, 1, 1, 1, 2, 1, 1, 1, 1]
    assert labels.start.tolist() == [True, False, True, False, False, True, True, False, False, False]
    assert labels.level.tolist()[2] == 0
    assert labels.level.tolist()[6] in (1, 2)
    assert relative_pitch(pitch)[:4].tolist() == [0.0] * 4
    with pytest.raises(KeyError):
        BOOK.aligned((Segment("unknown", 0.0, 0.4),), 10, pitch)


def test_behind_a_prompt_occurrences_go_on_alternating() -> None:
    def codes(phones: list[int]) -> np.ndarray:
        return BOOK.codes(np.array(phones), np.ones(len(phones), bool), np.ones(len(phones), np.int64))

    prompt, speech, both = codes([1, 2]), codes([2, 1, 1]), codes([1, 2, 2, 1, 1])
    assert np.array_equal(BOOK.shifted(speech, prompt), both[2:])
    assert np.array_equal(BOOK.shifted(speech, prompt[:0]), speech)


def test_a_book_is_checked_and_kept(tmp_path: Path) -> None:
    BOOK.save(tmp_path / "codes.json")
    assert CodeBook.load(tmp_path / "codes.json") == BOOK
    with pytest.raises(ValueError, match="begin with silence"):
        CodeBook(("a",), (1,), (True,), (0.0, 0.0))


@pytest.mark.parametrize("frames", [4, 60, 204])
def test_the_file_is_network_and_code_book(tmp_path: Path, frames: int) -> None:
    torch.manual_seed(frames)
    network = TokenizerNetwork(TokenizerConfig(16, 2), len(BOOK.phones)).eval()
    # Random weights say the same everywhere; a larger last layer makes the answer change from token to token.
    network.head.weight.data.mul_(30)
    path = tmp_path / "speech_tokenizer_v2.onnx"
    write_tokenizer(network, BOOK, path)
    mel = np.random.default_rng(frames).standard_normal((128, frames)).astype(np.float32)
    tokens = -(-frames // 4)
    found = SpeechTokenizer(path)._model.run(mel[None], np.array([frames], np.int32))
    assert found.dtype == np.int32
    assert found.shape == (1, tokens)
    with torch.inference_mode():
        logits = [each[0].numpy() for each in network(torch.from_numpy(mel)[None], torch.tensor([tokens]))]
    phone = logits[0].argmax(1)
    start = np.r_[True, phone[1:] != phone[:-1]] | (logits[1] > 0)
    run = np.cumsum(start)
    level = np.stack([logits[2][run == each].sum(0) for each in run]).argmax(1)
    assert found[0].tolist() == BOOK.codes(phone, start, level).tolist()


def test_tokens_of_the_corpus(coded: Run) -> None:
    corpus, book = coded.corpus, coded.book()
    shares = []
    for number in range(len(corpus)):
        aligned, heard = corpus.derived(ALIGNED, number), corpus.derived(HEARD, number)
        assert len(aligned) == len(heard) == corpus.utterances[number].tokens
        assert min(aligned.min(), heard.min()) >= 0
        assert max(aligned.max(), heard.max()) < book.size
        shares.append(repeats(aligned))
    # Repetition-aware sampling forbids what came among the last ten: it must hardly ever be right.
    assert np.mean(shares) < 0.03
    labels = labels_of(corpus, book, 0)
    assert np.array_equal(corpus.derived(ALIGNED, 0), book.codes(labels.phone, labels.start, labels.level))


def test_what_is_heard_is_what_the_served_tokenizer_hears(coded: Run) -> None:
    from cosyvoice_core.audio.resample import resample

    corpus = coded.corpus
    tokenizer = SpeechTokenizer(coded.work / "tokenizer" / ONNX)
    served = tokenizer.tokens(resample(corpus.wave(1), 24000, 16000))
    assert np.mean(served == corpus.derived(HEARD, 1)) > 0.8


def test_the_tokenizer_learns_phones(coded: Run) -> None:
    corpus, book = coded.corpus, coded.book()
    right = [
        book.phone_of(corpus.derived(HEARD, number)) == book.phone_of(corpus.derived(ALIGNED, number))
        for number in corpus.numbers(held_out=False)
    ]
    # The most common phone alone is below 0.25.
    assert np.concatenate(right).mean() > 0.35
