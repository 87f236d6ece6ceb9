"""What a checkpoint directory holds and whether it is sound, found without building a model.

Tensors are compared by name and shape with the layout that the settings imply, with the checksums that the file has of
them, and searched for values that are no numbers, straight from the file. Does not judge how the model sounds.
Source: docs/model.md, "Checkpoint files".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cosyvoice_core.checkpoint import soundness
from cosyvoice_core.checkpoint.directory import NEEDED, SAVED_VOICES, WHERE_TO_GET, CheckpointDirectory
from cosyvoice_core.checkpoint.layout import Shape, flow_layout, lm_layout, official_names, vocoder_layout
from cosyvoice_core.checkpoint.settings import OFFICIAL, read_model_config
from cosyvoice_core.checkpoint.soundness import Finding
from cosyvoice_core.checkpoint.tensors import damage, misfits, read_state
from cosyvoice_core.config import ModelConfig
from cosyvoice_core.errors import CheckpointError

_UNITS = ("B", "kB", "MB", "GB")


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file of a checkpoint.

    name: relative path; size: bytes; tensors, parameters, dtype: of a file of weights, shared tensors counted once
    as parameters; detail: what any other file holds; problems: why it is not sound, empty if it is.
    """

    name: str
    present: bool
    size: int = 0
    tensors: int | None = None
    parameters: int | None = None
    dtype: str | None = None
    detail: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """All files of a checkpoint directory. config: None when the settings cannot be read."""

    path: Path
    config: ModelConfig | None
    files: tuple[FileReport, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Every problem with the name of its file."""
        return tuple(f"{file.name}: {problem}" for file in self.files for problem in file.problems)

    @property
    def sound(self) -> bool:
        return not self.problems

    def render(self) -> str:
        """A text table of the files, ending with `sound` or with the list of problems."""
        rows = [("file", "size", "tensors", "parameters", "dtype", "")]
        rows += [_row(file) for file in self.files]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [f"checkpoint {self.path}"]
        for name, size, tensors, parameters, dtype, detail in rows:
            numbers = zip((size, tensors, parameters), widths[1:4], strict=True)
            cells = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in numbers), dtype.ljust(widths[4])]
            lines.append("  ".join([*cells, detail]).rstrip())
        if self.sound:
            return "\n".join([*lines, "sound"])
        count = len(self.problems)
        return "\n".join([*lines, f"{count} problem{'s' if count > 1 else ''}:", *(f"- {p}" for p in self.problems)])


def inspect_checkpoint(path: Path) -> Inspection:
    """Look at every file of a checkpoint directory; what is wrong with a file is reported, not raised.

    Raises CheckpointError when `path` is no directory.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such directory; expected a CosyVoice2 checkpoint ({WHERE_TO_GET})")
    checkpoint = CheckpointDirectory(path)
    states = {file: _state(file) for file in (checkpoint.llm, checkpoint.flow, checkpoint.vocoder)}
    config, settings = _settings(checkpoint, states[checkpoint.flow])
    reports = {
        checkpoint.settings: _report(checkpoint, checkpoint.settings, lambda: settings),
        **{
            file: _weights_report(checkpoint, file, state, _layout(checkpoint, file, config))
            for file, state in states.items()
        },
        **{file: _report(checkpoint, file, check) for file, check in _checks(checkpoint, config).items()},
    }
    files = [reports[path / name] for name in NEEDED]
    if checkpoint.saved_voices is not None:
        files.append(reports[checkpoint.saved_voices])
    else:
        files.append(FileReport(SAVED_VOICES, present=False, detail="none (optional)"))
    return Inspection(path, config, tuple(files))


def _settings(checkpoint: CheckpointDirectory, flow: dict[str, Tensor] | str) -> tuple[ModelConfig | None, Finding]:
    # A flow.pt that cannot be read is one problem, not two: the settings are then judged for the official model.
    blocks = OFFICIAL.flow.upsampled_blocks if isinstance(flow, str) else None
    try:
        config = read_model_config(checkpoint.path, upsampled_blocks=blocks)
    except CheckpointError as error:
        return None, Finding(problems=(str(error).removeprefix(f"{checkpoint.settings}: "),))
    lm, flow_dims, sampling = config.lm, config.flow, config.lm.sampling
    dims = f"LM {lm.layers} x {lm.hidden}, flow {flow_dims.encoder_dim}/{flow_dims.channels}"
    ras = f"top_p {sampling.top_p:g}, top_k {sampling.top_k}, tau {sampling.tau:g}"
    return config, Finding(f"{dims}, vocoder {config.vocoder.base_channels}, {ras}")


def _checks(checkpoint: CheckpointDirectory, config: ModelConfig | None) -> Mapping[Path, Callable[[], Finding]]:
    flow = config.flow if config else None
    rows = config.lm.text_rows if config else None
    tokenizer, voices = checkpoint.tokenizer, checkpoint.saved_voices
    speaker = soundness.speaker_encoder_ports((flow or OFFICIAL.flow).speaker_dim)
    checks: dict[Path, Callable[[], Finding]] = {
        checkpoint.speaker_encoder: lambda: soundness.check_onnx(checkpoint.speaker_encoder, *speaker),
        checkpoint.speech_tokenizer: lambda: soundness.check_onnx(
            checkpoint.speech_tokenizer, *soundness.speech_tokenizer_ports()
        ),
        checkpoint.lm_config: lambda: Finding(f"{rows} text rows" if rows else ""),
        tokenizer / "vocab.json": lambda: soundness.check_vocabulary(tokenizer / "vocab.json", rows),
        tokenizer / "merges.txt": lambda: soundness.check_merges(tokenizer / "merges.txt", tokenizer / "vocab.json"),
        tokenizer / "tokenizer_config.json": lambda: soundness.check_tokenizer_config(
            tokenizer / "tokenizer_config.json"
        ),
    }
    if voices is not None:
        checks[voices] = lambda: soundness.check_voices(voices, flow)
    return checks


def _state(file: Path) -> dict[str, Tensor] | str:
    """The tensors of a file, or why they cannot be read."""
    try:
        return read_state(file, mapped=True)
    except CheckpointError as error:
        return str(error).removeprefix(f"{file}: ")


def _layout(checkpoint: CheckpointDirectory, file: Path, config: ModelConfig | None) -> dict[str, Shape] | None:
    if config is None:
        return None
    if file == checkpoint.llm:
        return lm_layout(config.lm)
    return flow_layout(config.flow) if file == checkpoint.flow else vocoder_layout(config.vocoder)


def _missing(checkpoint: CheckpointDirectory, file: Path) -> FileReport | None:
    if file.is_file():
        return None
    name = file.relative_to(checkpoint.path).as_posix()
    problem = f"missing ({NEEDED[name]})"
    if file == checkpoint.settings:
        try:
            checkpoint.check_family()
        except CheckpointError as error:
            problem = str(error)
    return FileReport(name, present=False, problems=(problem,))


def _report(checkpoint: CheckpointDirectory, file: Path, check: Callable[[], Finding]) -> FileReport:
    missing = _missing(checkpoint, file)
    if missing is not None:
        return missing
    finding, name = check(), file.relative_to(checkpoint.path).as_posix()
    return FileReport(name, True, file.stat().st_size, detail=finding.detail, problems=finding.problems)


def _weights_report(
    checkpoint: CheckpointDirectory, file: Path, state: dict[str, Tensor] | str, layout: dict[str, Shape] | None
) -> FileReport:
    missing = _missing(checkpoint, file)
    if missing is not None:
        return missing
    name, size = file.relative_to(checkpoint.path).as_posix(), file.stat().st_size
    if isinstance(state, str):
        return FileReport(name, True, size, problems=(state,))
    own = official_names(state) if file == checkpoint.vocoder else state
    problems = [] if layout is None else misfits(layout, own)
    if altered := damage(file):
        problems.append(altered)
    broken = [key for key, value in own.items() if not bool(value.isfinite().all())]
    if broken:
        problems.append(f"{len(broken)} with values that are no numbers: {'; '.join(broken[:5])}")
    return FileReport(
        name,
        True,
        size,
        tensors=len(own),
        parameters=sum({value.data_ptr(): value.numel() for value in own.values()}.values()),
        dtype="+".join(sorted({str(value.dtype).removeprefix("torch.") for value in own.values()})),
        problems=tuple(problems),
    )


def _row(file: FileReport) -> tuple[str, str, str, str, str, str]:
    verdict = "; ".join(file.problems)
    note = f"{file.detail}{' ! ' if file.detail else '! '}{verdict}" if verdict else file.detail
    return (
        file.name,
        _bytes(file.size) if file.present else "-",
        "" if file.tensors is None else str(file.tensors),
        "" if file.parameters is None else f"{file.parameters:,}",
        file.dtype or "",
        note if len(note) <= 120 else note[:117] + "...",
    )


def _bytes(size: int) -> str:
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"
