"""Spectrograms of teacher and demo voice, one above the other. Needs matplotlib, which nothing else here does."""

from __future__ import annotations

from pathlib import Path

from cosyvoice_core.audio.features import prompt_mel
from tools.demo_voice.data.corpus import FloatArray


def draw(text: str, teacher: FloatArray, ours: FloatArray, path: Path) -> None:
    """Log mel of both, (N,) at 24 kHz each, on one scale of time."""
    # Imported here: only judging draws.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, wave, title in ((upper, teacher, "espeak-ng"), (lower, ours, "demo voice")):
        mel = prompt_mel(wave)
        axes.imshow(mel.T, origin="lower", aspect="auto", vmin=-10, vmax=1, extent=(0, len(mel) / 50, 0, 80))
        axes.set(ylabel="mel bin", title=title)
    lower.set(xlabel="seconds", xlim=(0, max(len(teacher), len(ours)) / 24000))
    figure.suptitle(text, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
