"""What can be wrong with the files of a checkpoint that hold no weights of ours: ONNX models, tokenizer, saved voices.

Each check opens one file and returns what it found in a few words, with a list of problems; none of them raises for a
bad file. Knows nothing of the other files. Source: docs/model.md, "Checkpoint files" and "Prompt features".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state
from torch import Tensor

from cosyvoice_core.checkpoint.tensors import damage, load_plain
from cosyvoice_core.config import FlowConfig
from cosyvoice_core.errors import CheckpointError

# onnxruntime's errors share no base class.
_ONNX_FAILURES: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    OSError,
    *(
        value
        for value in vars(onnxruntime_pybind11_state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)
_SHOWN = 5
SPECIAL_TOKENS = 20
"""Three of the base tokenizer and seventeen that CosyVoice2 appends behind them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a file holds, in a few words, and what is wrong with it."""

    detail: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output an ONNX model must have: element types it may take, sizes by axis (None: any)."""

    types: tuple[str, ...]
    shape: tuple[int | None, ...]


def speaker_encoder_ports(speaker_dim: int) -> tuple[list[Port], list[Port]]:
    """Fbank (1, T, 80) to speaker vector (1, speaker_dim)."""
    return [Port(("float",), (None, None, 80))], [Port(("float",), (None, speaker_dim))]


def speech_tokenizer_ports() -> tuple[list[Port], list[Port]]:
    """Log-mel (1, 128, T) and its length (1,) to token ids of any shape."""
    return [Port(("float",), (None, 128, None)), Port(("int32",), (None,))], [Port(("int32", "int64"), ())]


def check_onnx(path: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> Finding:
    """Compare a model's inputs and first outputs, by position, with what they must be."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _ONNX_FAILURES as error:
        return Finding(problems=(f"not a readable ONNX model ({' '.join(str(error).split())[:160]})",))
    taken, given = session.get_inputs(), session.get_outputs()
    problems = [*_port_problems("input", taken, inputs), *_port_problems("output", given, outputs)]
    if len(taken) > len(inputs):
        problems.append(f"has {len(taken)} inputs, expected {len(inputs)}")
    detail = f"{', '.join(map(_signature, taken))} -> {', '.join(map(_signature, given))}"
    return Finding(detail, tuple(problems))


def _signature(port: onnxruntime.NodeArg) -> str:
    sizes = ", ".join("?" if size is None else str(size) for size in port.shape or ())
    return f"{port.name} {_element(port)} ({sizes})"


def _element(port: onnxruntime.NodeArg) -> str:
    return str(port.type).removeprefix("tensor(").removesuffix(")")


def _port_problems(kind: str, found: Sequence[onnxruntime.NodeArg], needed: Sequence[Port]) -> list[str]:
    problems = []
    for index, port in enumerate(needed):
        if index >= len(found):
            problems.append(f"has no {kind} {index}")
            continue
        element, shape = _element(found[index]), found[index].shape or ()
        fits = not port.shape or not shape or len(shape) == len(port.shape)
        fixed = [(size, must) for size, must in zip(shape, port.shape, strict=False) if isinstance(size, int) and must]
        if element not in port.types or not fits or any(size != must for size, must in fixed):
            wanted = (
                f"{' or '.join(port.types)} ({', '.join('?' if size is None else str(size) for size in port.shape)})"
            )
            problems.append(f"{kind} {index} is {_signature(found[index])}, expected {wanted}")
    return problems


def check_vocabulary(path: Path, text_rows: int | None) -> Finding:
    """`vocab.json`: piece -> id, ids from 0 without gaps, with room for the specials in `text_rows`."""
    vocabulary = _json(path)
    if isinstance(vocabulary, str):
        return Finding(problems=(vocabulary,))
    ids = [value for value in vocabulary.values() if isinstance(value, int) and not isinstance(value, bool)]
    if sorted(ids) != list(range(len(vocabulary))):
        return Finding(problems=("ids are not the numbers from 0 on, each once",))
    if text_rows is not None and len(ids) + SPECIAL_TOKENS > text_rows:
        more = f"{len(ids)} pieces and the special tokens do not fit the model's {text_rows} text rows"
        return Finding(f"{len(ids)} pieces", (more,))
    return Finding(f"{len(ids)} pieces")


def check_merges(path: Path, vocabulary_path: Path) -> Finding:
    """`merges.txt`: two pieces per line whose union is in the vocabulary."""
    vocabulary = _json(vocabulary_path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        return Finding(problems=(f"not readable as text ({error})",))
    rules = [line.rstrip("\r") for line in lines[lines[0].startswith("#version") :] if line.strip()]
    if isinstance(vocabulary, str):
        return Finding(f"{len(rules)} merges")
    wrong = [rule for rule in rules if not _is_merge(rule, vocabulary)]
    return Finding(f"{len(rules)} merges", _listed("merges that do not fit the vocabulary", map(repr, wrong)))


def _is_merge(rule: str, vocabulary: Mapping[str, object]) -> bool:
    pair = rule.split(" ")
    return len(pair) == 2 and all(piece in vocabulary for piece in (*pair, "".join(pair)))


def check_tokenizer_config(path: Path) -> Finding:
    """`tokenizer_config.json`: names the special tokens of the base tokenizer."""
    values = _json(path)
    if isinstance(values, str):
        return Finding(problems=(values,))
    added = values.get("added_tokens_decoder")
    if not isinstance(added, dict):
        return Finding(problems=("added_tokens_decoder is missing",))
    wrong = [key for key, value in added.items() if not key.isdecimal() or not isinstance(value, dict)]
    return Finding(f"{len(added)} special tokens", _listed("added_tokens_decoder entries are not readable", wrong))


def check_voices(path: Path, config: FlowConfig | None) -> Finding:
    """`spk2info.pt`: name -> entry of tensors, each with a speaker vector; prompts within the model's ids."""
    try:
        voices = load_plain(path, mapped=True)
    except CheckpointError as error:
        return Finding(problems=(str(error).removeprefix(f"{path}: "),))
    if not isinstance(voices, dict):
        return Finding(problems=(f"expected a dict of voices, found {type(voices).__name__}",))
    problems = [problem for name, entry in voices.items() for problem in _voice_problems(name, entry, config)]
    if altered := damage(path):
        problems.append(altered)
    detail = f"{len(voices)} voice{'' if len(voices) == 1 else 's'}" + (
        f": {', '.join(map(str, list(voices)[:_SHOWN]))}" if voices else ""
    )
    return Finding(detail + (", ..." if len(voices) > _SHOWN else ""), tuple(problems))


def _voice_problems(name: object, entry: object, config: FlowConfig | None) -> list[str]:
    if not isinstance(name, str) or not isinstance(entry, dict):
        return [f"voice {name!r} is not a name with an entry"]
    speaker = _first(entry, "flow_embedding", "embedding", "llm_embedding")
    if speaker is None or not speaker.is_floating_point() or not bool(speaker.isfinite().all()):
        return [f"voice {name!r} has no usable speaker vector"]
    config = config or FlowConfig()
    problems = []
    if speaker.numel() != config.speaker_dim:
        problems.append(f"voice {name!r} has a speaker vector of {speaker.numel()}, expected {config.speaker_dim}")
    # Without a prompt text the other tensors belong to an older generation of the model and are not used.
    tokens = _first(entry, "flow_prompt_speech_token", "speech_token")
    mel = _first(entry, "prompt_speech_feat", "speech_feat")
    if "prompt_text" in entry and tokens is not None and mel is not None:
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < config.vocab_size:
            problems.append(f"voice {name!r} has speech tokens outside 0..{config.vocab_size - 1}")
        if mel.dim() < 2 or mel.shape[-1] != config.mel_bins or not bool(torch.isfinite(mel).all()):
            problems.append(f"voice {name!r} has no usable prompt mel of {config.mel_bins} bins")
    return problems


def _first(entry: Mapping[object, object], *keys: str) -> Tensor | None:
    return next((value for key in keys if isinstance(value := entry.get(key), Tensor)), None)


def _json(path: Path) -> dict[str, object] | str:
    """The file's object, or what is wrong with it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return f"not readable as JSON ({error})"
    return values if isinstance(values, dict) else f"expected a JSON object, found {type(values).__name__}"


def _listed(what: str, items: Iterable[str]) -> tuple[str, ...]:
    found = list(items)
    if not found:
        return ()
    return (f"{len(found)} {what}: {', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}",)
