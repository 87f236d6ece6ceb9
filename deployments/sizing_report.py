"""`python -m deployments sizing CONFIG`: what the stages of a Serve config take on cards, and whether they always fit.

Starts nothing and needs no GPU. Dims are those of the official checkpoint unless the config names a folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.config import ModelConfig
from deployments.args import AppArgs
from deployments.placement import Mix, pools, shares, stuck, together
from deployments.sizing import RESERVE_BYTES, StageBytes, stage_bytes

_GIB = 2**30


def model_config(args: AppArgs) -> ModelConfig:
    """Of the config's folder, or of the official checkpoint where it names a model id."""
    source = Path(args.model_source())
    return read_model_config(source) if source.is_dir() else ModelConfig()


def heaviest(mixes: list[Mix], sizes: Mapping[str, StageBytes]) -> tuple[int, Mix]:
    """Bytes and content of the fullest card."""
    return max(((sum(sizes[name].total * count for name, count in mix.items()), mix) for mix in mixes), key=_first)


def problems(application: Mapping[str, Any], card_gib: float, cards: int | None) -> list[str]:
    """What may go wrong on cards of this size, and this many of them in each pool; empty when nothing can."""
    args = AppArgs.model_validate(application["args"])
    sizes = stage_bytes(args, model_config(args))
    found = []
    for pool, deployments in pools(shares(application)).items():
        where = " and ".join(sorted(pool)) or "any node"
        most, mix = heaviest(list(together(deployments)), sizes)
        if most > card_gib * _GIB:
            found.append(f"{where}: {_text(mix)} may share a card and take {most / _GIB:.1f} of {card_gib:g} GiB")
        found += _engine_problems(args, sizes, list(together(deployments)), card_gib * _GIB, where)
        blocked = stuck(deployments, cards) if cards is not None else None
        if blocked is not None:
            name, state = blocked
            lying = "; ".join(_text(card) or "nothing" for card in state)
            found.append(f"{where}: no place for a {name} on {cards} cards that hold {lying}")
    return found


def report(application: Mapping[str, Any]) -> Iterator[str]:
    """A table of stages, and the fullest card of each pool."""
    args = AppArgs.model_validate(application["args"])
    sizes = stage_bytes(args, model_config(args))
    yield f"{'GiB':14}{'weights':>9}{'planned':>9}{'grows':>9}{'reserve':>9}{'sum':>9}"
    deployments = shares(application)
    for name in (share.name for share in deployments):
        size = sizes[name]
        row = (size.weights, size.planned, size.grows, RESERVE_BYTES, size.total)
        yield f"{name:14}" + "".join(f"{value / _GIB:9.2f}" for value in row)
    for pool, members in pools(deployments).items():
        most, mix = heaviest(list(together(members)), sizes)
        yield f"fullest card ({' and '.join(sorted(pool)) or 'any node'}): {_text(mix)}, {most / _GIB:.1f} GiB"
    if not deployments:
        yield "no deployment asks for a GPU"


def _engine_problems(
    args: AppArgs, sizes: Mapping[str, StageBytes], mixes: list[Mix], card: float, where: str
) -> Iterator[str]:
    """vLLM wants a fraction of the whole card free when it starts, whoever shares the card."""
    if not any("SpeechLM" in mix for mix in mixes):
        return
    wanted = args.lm.vllm.gpu_memory_utilization * card
    if wanted < sizes["SpeechLM"].total:
        yield f"{where}: SpeechLM takes more than its gpu_memory_utilization of {args.lm.vllm.gpu_memory_utilization}"
    for mix in mixes:
        if "SpeechLM" in mix:
            others = sum(sizes[name].total * count for name, count in mix.items()) - sizes["SpeechLM"].total
            if wanted > card - others:
                yield f"{where}: SpeechLM finds less than its gpu_memory_utilization free beside {_text(mix)}"


def _text(mix: Mix) -> str:
    return " and ".join(f"{count} {name}" for name, count in mix.items())


def _first(pair: tuple[int, Mix]) -> int:
    return pair[0]
