"""A toy run from texts to a checkpoint that speaks, and the command over it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cosyvoice_core.checkpoint.inspection import inspect_checkpoint
from cosyvoice_core.checkpoint.layout import flow_layout, lm_layout, vocoder_layout
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.hops import HopPlan
from cosyvoice_core.inputs import Mode
from cosyvoice_core.synthesis import Synthesizer
from cosyvoice_core.utterance import SpeechRequest
from cosyvoice_core.voice.speaker import SpeakerEncoder
from tools.demo_voice.__main__ import _STAGES, main
from tools.demo_voice.codec.codes import CodeBook
from tools.demo_voice.data.corpus import Corpus
from tools.demo_voice.data.espeak import Espeak
from tools.demo_voice.data.render import Manner, render
from tools.demo_voice.data.voices import SAVED
from tools.demo_voice.judge import evaluate as judge
from tools.demo_voice.judge.card import BOUNDS, model_card, record_of
from tools.demo_voice.judge.measures import clicks, loudness_db
from tools.demo_voice.judge.recogniser import Recogniser, word_errors, words_of
from tools.demo_voice.judge.speaking import Talker, Way
from tools.demo_voice.pack import LARGEST_MB, lm_state
from tools.demo_voice.run import STAGES, Run
from tools.demo_voice.scale import SCALES, bounded
from tools.demo_voice.speaker.network import SpeakerConfig, SpeakerNetwork, write_speaker_encoder
from tools.demo_voice.text.train import SPEECH_PER_TEXT, TextPlan, train_text


def test_minutes_are_divided_between_the_stages() -> None:
    plans = bounded(SCALES["gpu"], 10).plans
    each = [plans.tokenizer, plans.speaker, plans.lm, plans.flow, plans.vocoder]
    assert sum(plan.minutes for plan in each) == pytest.approx(10)
    assert plans.lm.steps == SCALES["gpu"].plans.lm.steps


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_full_checkpoint_is_small_enough(name: str) -> None:
    # More text tokens and codes than espeak-ng's English phones and the largest number of merges give.
    model = SCALES[name].model_with(1536, 2048)
    layouts = (lm_layout(model.lm), flow_layout(model.flow), vocoder_layout(model.vocoder))
    tensors = sum(2 * math.prod(shape) for layout in layouts for shape in layout.values())
    # The pitch predictor is in single precision, and two ONNX files, prompts and pictures come besides.
    assert tensors < (LARGEST_MB - 5) * 1e6
    assert (model.lm.sampling.top_p, model.lm.sampling.top_k) == (0.8, 25)
    assert (model.lm.sampling.window, model.lm.sampling.tau) == (10, 0.1)


def test_the_checkpoint_is_sound(packed: Path) -> None:
    inspection = inspect_checkpoint(packed)
    assert inspection.sound, inspection.render()


def test_the_speaker_file_is_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SpeakerNetwork(SpeakerConfig(24)).eval()
    write_speaker_encoder(network, tmp_path / "campplus.onnx")
    model = onnx.load(tmp_path / "campplus.onnx")
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["output"]
    fbank = np.random.default_rng(0).standard_normal((1, 131, 80)).astype(np.float32)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(fbank))[0].numpy()
    assert np.abs(SpeakerEncoder(tmp_path / "campplus.onnx")._model.run(fbank)[0] - wanted).max() < 1e-4


def test_the_text_tokenizer_keeps_enough_speech_for_each_token(coded: Run, tmp_path: Path) -> None:
    figures = train_text(tmp_path, coded.corpus, TextPlan((0, 300), share=0.6))
    assert figures["speech tokens per text token"] > SPEECH_PER_TEXT
    tokenizer = coded.text_tokenizer()
    assert tokenizer.decode(tokenizer.encode("Grüße, 世界! It's 5 o'clock.")) == "Grüße, 世界! It's 5 o'clock."
    with pytest.raises(ValueError, match="try more merges"):
        train_text(tmp_path, coded.corpus, TextPlan((0,), share=1.0))


def test_ids_that_no_one_says_cannot_be_drawn(coded: Run) -> None:
    config = coded.model().lm
    state = {key: torch.ones(shape) for key, shape in lm_layout(config).items()}
    packed = lm_state(state, config, coded.book().size)
    unused = [*range(coded.book().size, config.speech_tokens), config.speech_tokens + 1]
    assert (packed["llm_decoder.bias"][unused] < -50).all()
    assert int((packed["llm_decoder.bias"] < -50).sum()) == len(unused)
    assert not packed["llm_decoder.weight"][unused].any()


def test_the_checkpoint_speaks_the_same_however_it_is_streamed(packed: Path) -> None:
    synthesizer = Synthesizer.from_pretrained(packed)
    assert set(synthesizer.voices) == {voice.name for voice in SAVED}
    request = SpeechRequest("Good morning, how are you today?", synthesizer.voice("demo_female"), seed=1)
    assert request.effective_mode is Mode.ZERO_SHOT
    speech = synthesizer.speak(request)
    assert len(speech.samples) == 960 * sum(len(tokens) for tokens in speech.tokens)
    assert np.isfinite(speech.samples).all()
    assert speech.samples.std() > 1e-4
    book = CodeBook.load(packed.parent / "tokenizer" / "codes.json")
    assert max(token for tokens in speech.tokens for token in tokens) < book.size
    streams = []
    for plan in (HopPlan(), HopPlan(min_first_tokens=20, max_tokens=25)):
        tokens: list[int] = []
        streams.append(np.concatenate(list(synthesizer.stream(request, hops=plan, on_token=tokens.append))))
        assert tuple(tokens) == speech.tokens[0]
        assert len(streams[-1]) == len(speech.samples)
    # Another hop plan cuts elsewhere and sounds the same.
    assert np.abs(streams[0] - streams[1]).max() < 1e-3


def test_every_way_of_speaking_is_measured_alike(packed: Path, corpus: Corpus) -> None:
    talker = Talker(packed)
    voice = talker.voice(packed / "prompts" / "demo_deep.wav", (packed / "prompts" / "demo_deep.txt").read_text())
    said = {way: talker.say("What time is it?", voice, way, 0) for way in Way}
    for each in said.values():
        assert len(each.samples) % 960 == 0
        assert len(each.samples) > 0
        assert each.seconds > 0
    assert len(said[Way.ONE_SHOT].samples) == len(said[Way.STREAMED].samples)
    assert said[Way.ONE_SHOT].ended == said[Way.STREAMED].ended


def test_a_stage_that_is_done_gives_the_same_again(packed: Path, coded: Run) -> None:
    names = ("llm.pt", "flow.pt", "hift.pt")
    before = {name: read_state(packed / name) for name in names}
    again = Run(coded.work, coded.scale, coded.seed)
    for stage in ("lm", "flow", "vocoder", "pack"):
        again.stage(stage)
    for name in names:
        after = read_state(packed / name)
        assert all(torch.equal(after[key], value) for key, value in before[name].items())


def test_the_evaluation_writes_a_card_with_every_figure(
    packed: Path, coded: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moonshine_voice", reason="needs the extra demo-voice")
    monkeypatch.setattr(judge, "CASES", (judge.CASES[0], *judge.CASES[3:]))
    threads = torch.get_num_threads()
    run = Run(coded.work, replace(coded.scale, judge=replace(coded.scale.judge, sentences=1)), coded.seed)
    figures = run.stage("evaluate")
    torch.set_num_threads(threads)
    card = (packed / "README.md").read_text()
    for name, value in figures.items():
        assert f"| {name} | {value:.4g} |" in card
    assert "| tokenizer | phones heard right |" in card
    assert "![" in card
    assert (packed / "pictures" / "sentence-1.png").stat().st_size > 1000
    assert figures["megabytes"] < LARGEST_MB


def test_the_recogniser_understands_the_teacher_better_than_noise(espeak: Espeak) -> None:
    pytest.importorskip("moonshine_voice", reason="needs the extra demo-voice")
    recogniser, errors, words = Recogniser(), 0, 0
    for text in ("Good morning, how are you today?", "The train leaves at seven thirty.", "Nice to meet you."):
        wave = render(espeak, text, SAVED[0], Manner.plain(SAVED[0]), np.random.default_rng(0))[1].wave
        errors += word_errors(words_of(text), recogniser.words(wave, 24000))
        words += len(words_of(text))
    assert errors < 0.7 * words
    noise = 0.1 * np.random.default_rng(0).standard_normal(48000).astype(np.float32)
    assert not set(recogniser.words(noise, 24000)) & {"good", "morning", "train", "seven", "meet"}
    assert words_of("It's twenty-one o'clock!") == ("it's", "twenty", "one", "o'clock")


def test_the_card_says_which_bounds_are_kept() -> None:
    figures = {bound.figure: 0.5 for bound in BOUNDS} | {bound.times: 0.4 for bound in BOUNDS if bound.times}
    record = {
        "scale": "cpu",
        "measured": "a machine, a day",
        "sentences": 2,
        "seeds": 1,
        "training": {"lm": {"loss": 1.0}},
        "figures": figures,
    }
    card = model_card(record_of(record), [("A sentence.", "a.png")])
    assert "--sentences 2 --seeds 1`,\na machine, a day." in card
    assert "| one-shot: word error rate | 0.5 | 0.6 | yes |" in card
    assert "| one-shot: ends by itself | 0.5 | 0.995 | no |" in card
    assert "| one-shot: length to the teacher's, mean | 0.5 | 0.15 | no |" in card
    assert "![A sentence.](a.png)" in card


def test_clicks_and_loudness() -> None:
    time = np.arange(24000) / 24000
    tone = (0.2 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)
    assert clicks(tone) == 0
    broken = tone.copy()
    broken[12000:] = np.roll(tone, 45)[12000:]
    assert clicks(broken) >= 1
    assert loudness_db(tone) - loudness_db(tone / 10) == pytest.approx(20, abs=0.1)
    assert loudness_db(np.zeros(10, np.float32)) == -100.0


def test_the_command_knows_all_stages_and_says_what_is_missing(tmp_path: Path) -> None:
    assert _STAGES == STAGES
    with pytest.raises(FileNotFoundError, match="run the stage `data` first"):
        main(["tokenizer", "--work", str(tmp_path), "--scale", "toy"])
    with pytest.raises(SystemExit):
        main(["everything", "--work", str(tmp_path)])
