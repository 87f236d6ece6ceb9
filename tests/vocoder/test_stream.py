"""A stream equals the one-shot result for any chunking, alone or in a batch, from the start or resumed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.vocoder import (
    SourceNoise,
    Span,
    StreamWindow,
    VocodedWindow,
    Vocoder,
    VocoderStream,
    vocode_windows,
)
from cosyvoice_core.vocoder.section import Extent

SEED = 5
EXACT = StreamWindow(left=15, held=20)
"""Of the official rates; `test_exact_window_is_what_the_reach_says` derives it."""
PROMISED = 1e-4
ROUNDING = 1e-5
"""What float32 convolutions of different lengths differ by, on samples up to 1."""

pieces = st.lists(st.integers(0, 40), min_size=1, max_size=6)


def random_mel(frames: int, seed: int = 0) -> Tensor:
    """Mel (80, frames) that drifts like speech does, within its range."""
    steps = torch.randn(80, frames, generator=torch.Generator().manual_seed(seed))
    return steps.cumsum(1).mul_(0.3).sin_().mul_(2.0).sub_(1.0)


def streamed(
    vocoder: Vocoder, mel: Tensor, sizes: list[int], *, window: StreamWindow | None = None, skip_samples: int = 0
) -> list[Tensor]:
    """The audio of each push; `sizes` frames at a time, the rest with the last one."""
    stream = VocoderStream(vocoder, SEED, window, skip_samples=skip_samples)
    audio, start = [], 0
    for number, size in enumerate(sizes):
        last = number == len(sizes) - 1
        audio.append(stream.push(mel[:, start:] if last else mel[:, start : start + size], last))
        start += size
    assert stream.done
    return audio


def one_shot(vocoder: Vocoder, mel: Tensor) -> Tensor:
    return vocoder.vocode(mel[None], SourceNoise(SEED))[0]


def gap(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item() if actual.numel() else 0.0


@settings(max_examples=25)
@given(sizes=pieces, mel_seed=st.integers(0, 9))
def test_any_chunking_equals_one_shot(tiny: Vocoder, sizes: list[int], mel_seed: int) -> None:
    mel = random_mel(sum(sizes), mel_seed)
    whole = one_shot(tiny, mel)
    assert whole.numel() == 480 * sum(sizes)
    assert gap(torch.cat(streamed(tiny, mel, sizes)), whole) < PROMISED
    assert gap(torch.cat(streamed(tiny, mel, sizes, window=EXACT)), whole) < ROUNDING


def test_exact_window_is_what_the_reach_says(tiny: Vocoder, demo: Vocoder) -> None:
    assert StreamWindow.exact(tiny) == StreamWindow.exact(demo) == EXACT


def test_frame_by_frame_equals_one_shot(tiny: Vocoder) -> None:
    mel = random_mel(60)
    audio = streamed(tiny, mel, [1] * 60, window=EXACT)
    assert gap(torch.cat(audio), one_shot(tiny, mel)) < ROUNDING
    delays = [sum(piece.numel() for piece in audio[: pushed + 1]) - 480 * (pushed + 1) for pushed in range(59)]
    assert min(delays) == -480 * EXACT.held


def test_recorded_speech(demo: Vocoder, demo_mel: Tensor) -> None:
    whole = one_shot(demo, demo_mel)
    for hop in (1, 25, 50):
        mel, expected = (demo_mel, whole) if hop > 1 else (demo_mel[:, :80], one_shot(demo, demo_mel[:, :80]))
        sizes = [hop] * (mel.shape[1] // hop)
        assert gap(torch.cat(streamed(demo, mel, sizes)), expected) < ROUNDING


def test_no_step_at_seams(demo: Vocoder, demo_mel: Tensor) -> None:
    mel = demo_mel[:, :250]
    audio = streamed(demo, mel, [23] * 11)
    joined = torch.cat(audio)
    steps = joined.diff().abs()
    seams = torch.tensor([piece.numel() for piece in audio if piece.numel()]).cumsum(0)[:-1]
    assert len(seams) >= 9
    for seam in seams.tolist():
        around = steps[max(seam - 480, 0) : seam + 480]
        assert steps[seam - 1] <= around[torch.arange(len(around)) != min(seam, 480) - 1].max()


def test_long_pushes_are_cut_into_windows_of_bounded_length(tiny: Vocoder) -> None:
    mel = random_mel(130)
    short = StreamWindow(left=15, held=20, sizes=(7, 20))
    stream = VocoderStream(tiny, SEED, short)
    stream.feed(mel, True)
    pieces = []
    while (window := stream.window()) is not None:
        assert len(window.keep) <= 20
        assert window.mel.shape[1] <= 15 + 20 + 20
        pieces += [stream.emit(result) for result in vocode_windows(tiny, [window])]
    assert gap(torch.cat(pieces), one_shot(tiny, mel)) < ROUNDING


@settings(max_examples=50)
@given(sizes=st.lists(st.integers(0, 250), min_size=1, max_size=8))
def test_windows_have_few_shapes_whatever_is_pushed(tiny: Vocoder, sizes: list[int]) -> None:
    """Nothing is computed here; windows are answered with silence."""
    window = StreamWindow()
    stream, emitted = VocoderStream(tiny, SEED, window), 0
    for number, size in enumerate(sizes):
        stream.feed(torch.zeros(80, size), number == len(sizes) - 1)
        while (shape := stream.shape) is not None:
            prepared = stream.window()
            assert prepared is not None
            assert prepared.shape == shape
            assert shape in window.shapes()
            assert prepared.mel.shape[1] <= shape.frames
            assert shape.keep.start <= prepared.keep.start < prepared.keep.stop <= shape.keep.stop
            carried = prepared.carry
            silence = VocodedWindow(
                torch.zeros(480 * len(prepared.keep)), torch.zeros(480 * len(carried)), prepared.phase
            )
            emitted += stream.emit(silence).numel()
    assert stream.done
    assert emitted == 480 * sum(sizes)


def test_hops_of_the_service_fill_their_windows(tiny: Vocoder) -> None:
    """A first hop of 15 tokens, then chunks of 25: nothing is decoded twice and nothing is filled up."""
    stream = VocoderStream(tiny, SEED)
    for size in (30, 50, 50):
        stream.feed(random_mel(size), False)
        window = stream.window()
        assert window is not None
        assert window.keep == window.shape.keep
        stream.emit(vocode_windows(tiny, [window])[0])


def test_windows_do_not_grow_with_the_utterance(tiny: Vocoder) -> None:
    stream, sizes = VocoderStream(tiny, SEED), set()
    for hop in range(12):
        stream.feed(random_mel(25, hop), False)
        window = stream.window()
        if hop > 1:
            assert window is not None
            sizes.add(window.shape)
        if window is not None:
            stream.emit(vocode_windows(tiny, [window])[0])
    assert len(sizes) == 1


@settings(max_examples=10)
@given(plans=st.lists(pieces, min_size=2, max_size=4))
def test_streams_together_equal_streams_alone(tiny: Vocoder, plans: list[list[int]]) -> None:
    mels = [random_mel(sum(plan), seed) for seed, plan in enumerate(plans)]
    streams = [VocoderStream(tiny, SEED, EXACT) for _ in plans]
    audio: list[list[Tensor]] = [[] for _ in plans]
    for turn in range(max(map(len, plans))):
        for plan, mel, stream in zip(plans, mels, streams, strict=True):
            if turn < len(plan):
                stream.feed(mel[:, sum(plan[:turn]) : sum(plan[: turn + 1])], turn == len(plan) - 1)
        while prepared := [(row, window) for row, stream in enumerate(streams) if (window := stream.window())]:
            results = vocode_windows(tiny, [window for _, window in prepared])
            for (row, _), result in zip(prepared, results, strict=True):
                audio[row].append(streams[row].emit(result))
    for mel, stream, parts in zip(mels, streams, audio, strict=True):
        assert stream.done
        assert gap(torch.cat([torch.zeros(0), *parts]), one_shot(tiny, mel)) < ROUNDING


def test_windows_of_unequal_length_run_as_one_batch(tiny: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    forward = tiny.generator.forward

    def counted(mel: Tensor, source: Tensor, keep: Span, extent: Extent) -> Tensor:
        batches.append(len(mel))
        return forward(mel, source, keep, extent)

    monkeypatch.setattr(tiny.generator, "forward", counted)
    windows = []
    for seed, frames in enumerate((40, 33, 39, 75)):
        stream = VocoderStream(tiny, seed)
        stream.feed(random_mel(frames, seed), False)
        windows.append(stream.window())
    vocode_windows(tiny, [window for window in windows if window is not None])
    assert sorted(batches) == [1, 3]


@settings(max_examples=10)
@given(sizes=pieces, share=st.floats(0, 1))
def test_resumed_stream_gives_the_same_bits(tiny: Vocoder, sizes: list[int], share: float) -> None:
    mel = random_mel(sum(sizes))
    sent = int(share * 480 * sum(sizes))
    before = torch.cat(streamed(tiny, mel, sizes))
    after = torch.cat(streamed(tiny, mel, sizes, skip_samples=sent))
    assert torch.equal(after, before[sent:])


def test_what_was_sent_is_not_decoded_again(tiny: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    mel = random_mel(200)
    decoded = []
    forward = tiny.generator.forward

    def counted(mel: Tensor, source: Tensor, keep: Span, extent: Extent) -> Tensor:
        decoded.append(len(keep))
        return forward(mel, source, keep, extent)

    monkeypatch.setattr(tiny.generator, "forward", counted)
    audio = streamed(tiny, mel, [25] * 8, skip_samples=480 * 150)
    assert [piece.numel() for piece in audio[:-2]] == [0] * 6
    assert len(decoded) == 2


def test_skipping_more_than_there_is_gives_nothing(tiny: Vocoder) -> None:
    assert torch.cat(streamed(tiny, random_mel(30), [10, 20], skip_samples=10**6)).numel() == 0


def test_another_seed_is_other_noise_and_the_same_seed_the_same_audio(tiny: Vocoder) -> None:
    mel = random_mel(30)[None]
    first, again, other = (tiny.vocode(mel, SourceNoise(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_rows_of_a_one_shot_batch_have_their_own_noise(tiny: Vocoder) -> None:
    mel = torch.stack([random_mel(20, 0), random_mel(20, 1)])
    both = tiny.vocode(mel, [SourceNoise(1), SourceNoise(2)])
    for row, seed in enumerate((1, 2)):
        assert gap(both[row], tiny.vocode(mel[row : row + 1], SourceNoise(seed))[0]) < ROUNDING
    with pytest.raises(InputError, match="noise"):
        tiny.vocode(mel, [SourceNoise(1)])


def test_no_frames_give_no_audio(tiny: Vocoder) -> None:
    assert VocoderStream(tiny, SEED).push(torch.zeros(80, 0), True).shape == (0,)
    assert tiny.vocode(torch.zeros(2, 80, 0), SourceNoise(0)).shape == (2, 0)


def test_a_value_that_is_not_finite_fails_its_own_utterance_only(tiny: Vocoder) -> None:
    mel = random_mel(50)
    broken = mel.clone()
    broken[3, 20] = float("nan")
    streams = [VocoderStream(tiny, SEED), VocoderStream(tiny, SEED)]
    windows = []
    for stream, frames in zip(streams, (broken, mel), strict=True):
        stream.feed(frames, True)
        windows.append(stream.window())
    results = vocode_windows(tiny, [window for window in windows if window is not None])
    with pytest.raises(EngineError, match="not finite"):
        streams[0].emit(results[0])
    assert gap(streams[1].emit(results[1]), one_shot(tiny, mel)) < ROUNDING


def test_misuse_is_refused(tiny: Vocoder) -> None:
    stream = VocoderStream(tiny, SEED)
    with pytest.raises(InputError, match="mel"):
        stream.feed(torch.zeros(79, 4), False)
    with pytest.raises(InputError, match="mel"):
        stream.feed(torch.zeros(1, 80, 4), False)
    stream.feed(random_mel(40), True)
    with pytest.raises(InputError, match="last"):
        stream.feed(random_mel(1), True)
    window = stream.window()
    assert window is not None
    with pytest.raises(RuntimeError, match="still being computed"):
        stream.window()
    result = vocode_windows(tiny, [window])[0]
    stream.emit(result)
    with pytest.raises(RuntimeError, match="no window"):
        stream.emit(result)
    with pytest.raises(InputError, match="skip_samples"):
        VocoderStream(tiny, SEED, skip_samples=-1)
    for seed in (-1, 1 << 64):
        with pytest.raises(InputError, match="seed"):
            VocoderStream(tiny, seed)
    for wrong in ({"left": 4}, {"held": 5}, {"sizes": ()}, {"sizes": (0, 50)}, {"sizes": (50, 50)}, {"sizes": (8, 15)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            StreamWindow(**wrong)
