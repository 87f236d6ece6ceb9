"""Pictures of measurements. Needs matplotlib, which nothing else here does."""

from __future__ import annotations

from pathlib import Path

from cosyvoice_core.bench.acoustic_figures import TOKEN_RATE, AcousticResult


def draw(result: AcousticResult, path: Path, machine: str) -> None:
    """Three panels: a chunk as the utterance grows, work against recomputing, streams together against in turn.

    Raises ModuleNotFoundError naming the package when matplotlib is not installed.
    """
    # Imported here: measuring needs no pictures, and a library's users no drawing package.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    growth, work, batches = figure.subplots(1, 3)
    rate = TOKEN_RATE * result.plan.flow.mel_ratio
    seconds = [chunk.before / rate for chunk in result.chunks]
    last = result.chunks[-1]
    growth.plot(seconds, [chunk.seconds for chunk in result.chunks], label="measured")
    growth.plot(
        seconds,
        [chunk.counted * last.seconds / last.counted for chunk in result.chunks],
        "--",
        label="by count, scaled to the last",
    )
    growth.set(xlabel="audio before the chunk (s)", ylabel="seconds per chunk of 1 s", ylim=(0, None))
    growth.legend()
    labels = [f"{cost.audio_s} s" for cost in result.work]
    work.bar(labels, [cost.recompute_s for cost in result.work], label="every prefix recomputed")
    work.bar(labels, [cost.incremental_s for cost in result.work], label="incremental")
    work.set(xlabel="length of the stream", ylabel="flow, seconds in all")
    work.legend()
    sizes = [str(cost.streams) for cost in result.batches]
    batches.plot(sizes, [cost.ratio for cost in result.batches], "o-")
    batches.axhline(1, color="grey", linewidth=0.8)
    batches.set(xlabel="streams", ylabel="time together / in turn", ylim=(0, None))
    figure.suptitle(machine, fontsize=9)
    figure.savefig(path)
