"""The offline synthesizer: streams without seams, seeds, modes, and the command line."""

from __future__ import annotations

import itertools
import wave
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosyvoice_core.__main__ import main
from cosyvoice_core.errors import InputError
from cosyvoice_core.flow import FlowSession
from cosyvoice_core.hops import HopPlan
from cosyvoice_core.inputs import FloatArray, Mode, VoicePrompt
from cosyvoice_core.synthesis import Synthesizer
from cosyvoice_core.utterance import SpeechRequest, Utterance, segment_seed
from cosyvoice_core.waveform import WaveformSession

SENTENCE = "The weather will be fine tomorrow."
TEXTS = (SENTENCE, "Yes.", "What time is it now?", "Bring 3 boxes to the old station, please.", "你好，世界。")


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer.from_pretrained(Path(__file__).parents[1] / "checkpoints" / "demo")


@pytest.fixture(scope="module")
def tokens_of(synthesizer: Synthesizer) -> Callable[[str], tuple[int, ...]]:
    """Speech tokens of a text, spoken once."""

    @cache
    def speak(text: str) -> tuple[int, ...]:
        return synthesizer.speak(SpeechRequest(text=text, voice=synthesizer.voice("demo_female"), seed=3)).tokens[0]

    return speak


@pytest.fixture(scope="module")
def tokens(tokens_of: Callable[[str], tuple[int, ...]]) -> tuple[int, ...]:
    """Real speech tokens, about 2 s of them."""
    return tokens_of(SENTENCE)


def cut_prompt(voice: VoicePrompt, length: int) -> VoicePrompt:
    return VoicePrompt(voice.speaker, voice.speech_tokens[:length], voice.mel[: 2 * length])


def streamed(
    synthesizer: Synthesizer, voice: VoicePrompt, tokens: tuple[int, ...], cuts: list[int], seed: int, speed: float
) -> list[FloatArray]:
    """Sound of tokens pushed in pieces that end at `cuts`, straight through flow and vocoder."""
    stages = synthesizer._stages
    flow = FlowSession(
        stages.flow, *(torch.from_numpy(array) for array in (voice.speech_tokens, voice.mel, voice.speaker))
    )
    waveform = WaveformSession(stages.vocoder, seed=seed, speed=speed)
    edges = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    pieces = [tokens[a:b] for a, b in itertools.pairwise(edges)]
    return [
        waveform.push(flow.push(piece, last=n == len(pieces) - 1), last=n == len(pieces) - 1).numpy()
        for n, piece in enumerate(pieces)
    ]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.sampled_from(TEXTS),
    prompt=st.integers(0, 60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    seed=st.integers(0, 2**62),
    speed=st.sampled_from([1.0, 1.0, 0.6, 1.7]),
)
def test_any_chunking_is_the_one_shot_sound(
    synthesizer: Synthesizer,
    tokens_of: Callable[[str], tuple[int, ...]],
    text: str,
    prompt: int,
    cuts: list[int],
    seed: int,
    speed: float,
) -> None:
    tokens = tokens_of(text)
    voice = cut_prompt(synthesizer.voice("demo_female"), prompt)
    whole = np.concatenate(streamed(synthesizer, voice, tokens, [], seed, speed))
    parts = streamed(synthesizer, voice, tokens, cuts, seed, speed)
    assert len(whole) == int(2 * len(tokens) / speed) * 480
    # Sums in another order move mel by 1e-5 and pitch by 5e-4 Hz, which adds up in the phase of the harmonics.
    assert np.abs(np.concatenate(parts) - whole).max() <= 1e-3


def test_no_step_at_a_seam_is_larger_than_within(synthesizer: Synthesizer, tokens: tuple[int, ...]) -> None:
    pieces = streamed(synthesizer, synthesizer.voice("demo_male"), 2 * tokens, [20, 40, 65, 90], 5, 1.0)
    parts = [piece for piece in pieces if len(piece)]
    assert len(parts) > 3
    sound = np.concatenate(parts)
    steps = np.abs(np.diff(sound))
    seams = np.cumsum([len(part) for part in parts])[:-1] - 1
    for seam in seams:
        around = steps[max(seam - 240, 0) : seam + 240]
        assert steps[seam] <= np.sort(around)[-2]


def test_hop_plans_do_not_change_the_sound(synthesizer: Synthesizer) -> None:
    request = SpeechRequest(text=SENTENCE, voice=synthesizer.voice("demo_bright"), seed=8)
    plans = [HopPlan(), HopPlan(1, 25), HopPlan(40, 100)]
    sounds = [np.concatenate(list(synthesizer.stream(request, hops=plan))) for plan in plans]
    for sound in sounds[1:]:
        assert np.abs(sound - sounds[0]).max() <= 1e-4


def test_the_first_piece_leaves_before_the_last_token_is_known(synthesizer: Synthesizer) -> None:
    known: list[int] = []
    request = SpeechRequest(text=SENTENCE, voice=synthesizer.voice("demo_female"), seed=3)
    stream = synthesizer.stream(request, on_token=known.append)
    next(stream)
    early = len(known)
    list(stream)
    assert early < len(known)


def test_seeds_and_segments(synthesizer: Synthesizer) -> None:
    voice = synthesizer.voice("demo_female")

    def sound(seed: int, text: str = SENTENCE) -> FloatArray:
        return synthesizer.speak(SpeechRequest(text=text, voice=voice, seed=seed)).samples

    assert np.array_equal(sound(1), sound(1))
    assert not np.array_equal(sound(1), sound(2))
    seeds = {segment_seed(seed, index) for seed in range(50) for index in range(50)}
    assert len(seeds) == 2500


@pytest.mark.parametrize("mode", [Mode.SFT, Mode.ZERO_SHOT, Mode.CROSS_LINGUAL, Mode.INSTRUCT2])
def test_every_mode_speaks(synthesizer: Synthesizer, mode: Mode) -> None:
    instruction = "Speak slowly." if mode is Mode.INSTRUCT2 else ""
    voice = synthesizer.voice("demo_male")
    request = SpeechRequest(text=SENTENCE, voice=voice, mode=mode, instruction=instruction, seed=1)
    speech = synthesizer.speak(request)
    assert np.isfinite(speech.samples).all()
    assert len(speech.samples) == len(speech.tokens[0]) * 960


def test_conversion_keeps_the_length_of_its_source(synthesizer: Synthesizer, demo_checkpoint: Path) -> None:
    source = demo_checkpoint / "prompts" / "demo_male.wav"
    with wave.open(str(source)) as sound:
        seconds = sound.getnframes() / sound.getframerate()
    speech = synthesizer.convert(source, synthesizer.voice("demo_female"), seed=1)
    assert len(speech.samples) / speech.sample_rate == pytest.approx(seconds, abs=0.08)
    streamed = np.concatenate(list(synthesizer.stream_conversion(source, synthesizer.voice("demo_female"), seed=1)))
    assert streamed.shape == speech.samples.shape
    # Other attention, the same words: the sound's loudness follows the source in both.
    assert np.corrcoef(_loudness(streamed), _loudness(speech.samples))[0, 1] > 0.8


def _loudness(samples: FloatArray) -> FloatArray:
    frames = samples[: len(samples) // 960 * 960].reshape(-1, 960)
    return np.asarray(np.sqrt(np.square(frames).mean(axis=1)), np.float32)


def test_the_mode_follows_from_what_is_given(synthesizer: Synthesizer) -> None:
    voice = synthesizer.voice("demo_male")
    assert SpeechRequest(text="a", voice=voice).effective_mode is Mode.ZERO_SHOT
    assert SpeechRequest(text="a", voice=voice, instruction="Fast.").effective_mode is Mode.INSTRUCT2
    assert SpeechRequest(text="a", voice=cut_prompt(voice, 20)).effective_mode is Mode.CROSS_LINGUAL
    assert SpeechRequest(text="a", voice=cut_prompt(voice, 0)).effective_mode is Mode.SFT


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"speed": 0.4}, "speed"),
        ({"speed": float("nan")}, "speed"),
        ({"seed": -1}, "seed"),
        ({"mode": Mode.INSTRUCT2}, "instructions"),
    ],
)
def test_requests_that_cannot_be_are_refused(synthesizer: Synthesizer, options: dict[str, object], field: str) -> None:
    with pytest.raises(InputError) as refused:
        SpeechRequest(text="a", voice=synthesizer.voice("demo_male"), **options)  # type: ignore[arg-type]
    assert refused.value.field == field


def test_an_instruction_is_never_dropped_in_silence(synthesizer: Synthesizer) -> None:
    with pytest.raises(InputError, match="instructions: mode zero_shot takes none"):
        SpeechRequest(text="Hi.", voice=synthesizer.voice("demo_male"), mode=Mode.ZERO_SHOT, instruction="slowly")


def test_text_with_nothing_to_say_is_refused(synthesizer: Synthesizer) -> None:
    with pytest.raises(InputError, match="nothing that can be spoken"):
        synthesizer.speak(SpeechRequest(text="... !?", voice=synthesizer.voice("demo_male")))


def test_a_long_text_is_planned_lazily(synthesizer: Synthesizer) -> None:
    request = SpeechRequest(text="One more sentence. " * 100_000, voice=synthesizer.voice("demo_male"))
    utterances = synthesizer.planner.utterances(request)
    first: Utterance = next(utterances)
    assert first.index == 0
    assert next(utterances).seed != first.seed


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_command_line_speaks(tmp_path: Path, demo_checkpoint: Path, stream: list[str]) -> None:
    out = tmp_path / "out.wav"
    prompt = demo_checkpoint / "prompts" / "demo_deep.wav"
    transcript = prompt.with_suffix(".txt").read_text()
    options = ["--prompt", str(prompt), "--transcript", transcript, "--seed", "1", "--out", str(out), *stream]
    status = main(["speak", SENTENCE, "--model", str(demo_checkpoint), *options])
    assert status == 0
    with wave.open(str(out)) as sound:
        assert sound.getnframes() > 24000


def test_command_line_converts_and_inspects(
    tmp_path: Path, demo_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, model = tmp_path / "out.wav", str(demo_checkpoint)
    source = str(demo_checkpoint / "prompts" / "demo_male.wav")
    arguments = ["speak", "--mode", "vc", "--source", source, "--voice", "demo_female", "--model", model]
    assert main([*arguments, "--out", str(out)]) == 0
    whole = out.stat().st_size
    assert main([*arguments, "--stream", "--out", str(out)]) == 0
    assert out.stat().st_size == whole
    assert main(["inspect", model]) == 0
    assert "sound" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path)]) == 1


def test_command_line_tells_what_is_wrong(demo_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speak", "Hello.", "--voice", "nobody", "--model", str(demo_checkpoint)]) == 2
    assert "demo_female" in capsys.readouterr().err
    assert main(["speak", "Hello.", "--voice", "demo_male", "--model", "/nonexistent/folder"]) == 2
    assert "/nonexistent/folder" in capsys.readouterr().err
    assert main(["speak", "Hello.", "--voice", "demo_male", "--out", "/nonexistent/folder/speech.wav"]) == 2
    assert "/nonexistent/folder" in capsys.readouterr().err
    assert main(["speak", "Hello.", "--voice", "demo_male", "--device", "cuda:99"]) == 2
    assert "device: 'cuda:99' cannot be used here" in capsys.readouterr().err
    assert main(["speak", "--voice", "demo_male"]) == 2
    assert "nothing that can be spoken" in capsys.readouterr().err


def test_command_line_finds_the_demo_voice_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["speak", "Yes.", "--voice", "demo_male", "--seed", "1"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["speech.wav"]
