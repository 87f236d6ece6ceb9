"""The model card: every figure of a run beside the bound it should keep. Measures nothing itself."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tools.demo_voice.data.voices import SAVED, UNSEEN


@dataclass(frozen=True, slots=True)
class Record:
    """What a run has found. measured: on what, with what and when; training: stage -> its figures; figures: of the
    evaluation."""

    scale: str
    measured: str
    sentences: int
    seeds: int
    training: Mapping[str, Mapping[str, float]]
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure must lie `within` a limit, which may be a multiple of another figure."""

    figure: str
    limit: float
    within: Callable[[float, float], bool]
    times: str = ""

    def value(self, figures: Mapping[str, float]) -> float:
        return self.limit * (figures[self.times] if self.times else 1.0)

    def kept(self, figures: Mapping[str, float]) -> bool:
        return self.within(figures[self.figure], self.value(figures))


def _near_one(value: float, limit: float) -> bool:
    return abs(value - 1.0) <= limit


def _bounds() -> Iterator[Bound]:
    for case, factor in (("one-shot", 1.5), ("streamed", 1.5), ("bi-streamed", 1.5), ("unseen voices", 1.8)):
        yield Bound(f"{case}: word error rate", factor, operator.le, f"{case}: word error rate of the teacher")
        yield Bound(f"{case}: ends by itself", 0.995, operator.ge)
        yield Bound(f"{case}: nearest to its own prompt", 0.95, operator.ge)
        yield Bound(f"{case}: length to the teacher's, mean", 0.15, _near_one)
        # A formant synthesiser's own pulses count as clicks: none but those may be heard.
        yield Bound(f"{case}: clicks per minute", 1.0, operator.le, f"{case}: clicks per minute of the teacher")
    yield Bound("real-time factor", 0.5, operator.le)
    yield Bound("first audio, median, s", 0.5, operator.le)
    yield Bound("megabytes", 40.0, operator.le)


BOUNDS = tuple(_bounds())


def record_of(values: Mapping[str, Any]) -> Record:
    return Record(**{field.name: values[field.name] for field in fields(Record)})


def model_card(record: Record, pictures: Sequence[tuple[str, str]]) -> str:
    """Markdown. pictures: sentence and path of each."""
    return "\n".join(_lines(record, pictures)) + "\n"


def _lines(record: Record, pictures: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield f"# Demo voice, scale `{record.scale}`"
    yield ""
    yield "A small checkpoint in the official CosyVoice2 layout. Its only teacher is espeak-ng, so it sounds like"
    yield "espeak-ng at best; it is there to hear and test the whole chain without the official weights."
    yield ""
    yield f"## Judged on {record.sentences} held-out sentences, seeds for each: {record.seeds}"
    yield ""
    yield "Word errors by Moonshine's small English model (moonshine-voice 0.0.73), open vocabulary; the teacher's are"
    yield "those of espeak-ng's own sound of the same sentences and voices. Nearness by pitch and formants to the"
    yield f"teacher saying the same in each of {len(SAVED) + len(UNSEEN)} voices. No person has judged."
    yield "Everyday sentences are written by hand; the others are made from templates, and mean nothing."
    yield "The real-time factor is that of the whole chain on one thread, first audio that of the default service,"
    yield "with one listener at a time."
    yield ""
    yield f"`python -m tools.demo_voice evaluate --sentences {record.sentences} --seeds {record.seeds}`,"
    yield f"{record.measured}."
    yield ""
    yield "| figure | value | bound | kept |"
    yield "|---|---|---|---|"
    by_figure = {bound.figure: bound for bound in BOUNDS}
    for name, value in record.figures.items():
        bound = by_figure.get(name)
        limit = f"{bound.value(record.figures):.4g}" if bound else ""
        kept = ("yes" if bound.kept(record.figures) else "no") if bound else ""
        yield f"| {name} | {value:.4g} | {limit} | {kept} |"
    yield ""
    yield "## Training"
    yield ""
    yield "| stage | figure | value |"
    yield "|---|---|---|"
    for stage, figures in record.training.items():
        for name, value in figures.items():
            yield f"| {stage} | {name} | {value:.4g} |"
    yield ""
    yield "## Spectrograms, teacher above, demo voice below"
    yield ""
    for text, path in pictures:
        yield f"![{text}]({path})"
