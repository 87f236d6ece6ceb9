"""Inspection calls a good checkpoint sound and names everything that is wrong with a bad one."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cosyvoice_core.checkpoint.inspection import FileReport, Inspection, inspect_checkpoint
from cosyvoice_core.checkpoint.layout import lm_layout
from cosyvoice_core.checkpoint.random import tiny_config, write_random_checkpoint
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.flow.model import FlowModel

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo"
TINY = tiny_config(DEMO)
ROWS = TINY.lm.text_rows


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("written"), TINY, seed=0, front_end=DEMO).path


@pytest.fixture
def tiny(tmp_path: Path, written: Path) -> Path:
    """A sound random checkpoint, free to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "tiny"))


def report(inspection: Inspection, name: str) -> FileReport:
    return next(file for file in inspection.files if file.name == name)


def test_demo_checkpoint_is_sound(demo_checkpoint: Path) -> None:
    inspection = inspect_checkpoint(demo_checkpoint)
    assert inspection.sound
    assert inspection.render().splitlines()[-1] == "sound"
    llm = report(inspection, "llm.pt")
    tensors = len(lm_layout(read_model_config(demo_checkpoint).lm))
    assert (llm.tensors, llm.dtype, llm.size) == (tensors, "float16", (demo_checkpoint / "llm.pt").stat().st_size)
    assert report(inspection, "hift.pt").dtype == "float16+float32"
    assert "demo_male" in report(inspection, "spk2info.pt").detail
    assert f"{ROWS} text rows" in report(inspection, "CosyVoice-BlankEN/config.json").detail


def test_random_checkpoint_is_sound_and_counted(tiny: Path) -> None:
    inspection = inspect_checkpoint(tiny)
    assert inspection.problems == ()
    assert inspection.config == TINY
    for name in ("llm.pt", "flow.pt", "hift.pt"):
        state = read_state(tiny / name)
        distinct = {tensor.data_ptr(): tensor.numel() for tensor in state.values()}
        assert report(inspection, name).tensors == len(state)
        assert report(inspection, name).parameters == sum(distinct.values())


def test_table_has_one_aligned_line_per_file(tiny: Path) -> None:
    lines = inspect_checkpoint(tiny).render().splitlines()
    assert lines[0] == f"checkpoint {tiny}"
    header, rows = lines[1], lines[2:-1]
    assert header.split() == ["file", "size", "tensors", "parameters", "dtype"]
    assert [row.split()[0] for row in rows][:4] == ["cosyvoice2.yaml", "llm.pt", "flow.pt", "hift.pt"]
    end = header.index("parameters") + len("parameters")
    weights = [row for row in rows if ".pt" in row and "float32" in row]
    assert len(weights) == 3 and all(row[end - 1].isdigit() and row[end] == " " for row in weights)


def test_saved_voices_are_optional(tiny: Path) -> None:
    (tiny / "spk2info.pt").unlink()
    inspection = inspect_checkpoint(tiny)
    assert inspection.sound
    assert not report(inspection, "spk2info.pt").present


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        inspect_checkpoint(tmp_path / "nowhere")


def test_empty_directory_lists_every_file(tmp_path: Path) -> None:
    inspection = inspect_checkpoint(tmp_path)
    assert len(inspection.problems) == 10
    assert all("missing" in problem for problem in inspection.problems)
    assert inspection.render().splitlines()[-11] == "10 problems:"


def edit(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = read_state(path)
    change(state)
    torch.save(state, path)


def flip(path: Path) -> None:
    """Another sign for one number within the largest tensor, somewhere in the middle."""
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    # Behind the entry's own header come its name and padding, which are far shorter than half of it.
    content[entry.header_offset + entry.file_size // 2 // 4 * 4 + 3] ^= 0x80
    path.write_bytes(bytes(content))


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def swap(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def voices(path: Path, change: Callable[[dict[str, dict[str, Tensor]]], object]) -> None:
    entries = torch.load(path, weights_only=True)
    change(entries)
    torch.save(entries, path)


def fill(state: dict[str, Tensor], key: str, value: float) -> None:
    state[key].view(-1)[3] = value


NORM = "llm.model.model.norm.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing tensor": (
        lambda d: edit(d / "llm.pt", lambda s: s.pop(NORM)),
        "llm.pt: 1 missing: llm.model.model.norm.weight [64]",
    ),
    "extra tensor": (
        lambda d: edit(d / "flow.pt", lambda s: s.update(more=torch.ones(2))),
        "flow.pt: 1 unexpected: more [2]",
    ),
    "mis-shaped tensor": (
        lambda d: edit(d / "hift.pt", lambda s: s.update({"conv_pre.bias": torch.ones(3)})),
        "hift.pt: 1 mis-shaped: conv_pre.bias is [3], expected [32]",
    ),
    "integers for weights": (
        lambda d: edit(d / "llm.pt", lambda s: s.update({NORM: torch.ones(64, dtype=torch.int8)})),
        "llm.pt: 1 not of real numbers: llm.model.model.norm.weight is torch.int8",
    ),
    "not a number": (
        lambda d: edit(d / "flow.pt", lambda s: fill(s, "encoder_proj.weight", float("nan"))),
        "flow.pt: 1 with values that are no numbers: encoder_proj.weight",
    ),
    "infinite": (
        lambda d: edit(d / "hift.pt", lambda s: fill(s, "conv_post.bias", float("inf"))),
        "hift.pt: 1 with values that are no numbers: conv_post.bias",
    ),
    "cut weights": (lambda d: cut(d / "flow.pt", 0.6), "flow.pt: not a readable torch file"),
    "empty weights": (lambda d: (d / "llm.pt").write_bytes(b""), "llm.pt: not a readable torch file"),
    "text for weights": (
        lambda d: (d / "hift.pt").write_text("version https://git-lfs.github.com/spec/v1"),
        "hift.pt: ",
    ),
    "code in weights": (lambda d: torch.save({"a": os.system}, d / "llm.pt"), "llm.pt: damaged, or holds more than"),
    "missing weights": (lambda d: (d / "hift.pt").unlink(), "hift.pt: missing (weights of the vocoder)"),
    "settings of other dimensions": (
        lambda d: swap(d / "cosyvoice2.yaml", "linear_units: 96", "linear_units: 97"),
        "flow.pt: 9 mis-shaped: encoder.encoders.0.feed_forward.w_1.weight is [96, 48], expected [97, 48]",
    ),
    "unsupported settings": (
        lambda d: swap(d / "cosyvoice2.yaml", "'euler'", "'heun'"),
        "cosyvoice2.yaml: flow.decoder.cfm_params.content.solver is 'heun'; only 'euler' is supported",
    ),
    "broken settings": (
        lambda d: (d / "cosyvoice2.yaml").write_text("a: [1"),
        "cosyvoice2.yaml: not readable as YAML",
    ),
    "other generation": (
        lambda d: (d / "cosyvoice2.yaml").rename(d / "cosyvoice3.yaml"),
        "this is CosyVoice 3; only CosyVoice 2",
    ),
    "broken language model settings": (
        lambda d: swap(d / "CosyVoice-BlankEN" / "config.json", "{", "["),
        "config.json: not readable as JSON",
    ),
    "speech tokenizer for speaker encoder": (
        lambda d: shutil.copy(d / "speech_tokenizer_v2.onnx", d / "campplus.onnx"),
        "campplus.onnx: output 0 is indices int32 (1, ",
    ),
    "speaker encoder for speech tokenizer": (
        lambda d: shutil.copy(d / "campplus.onnx", d / "speech_tokenizer_v2.onnx"),
        "speech_tokenizer_v2.onnx: has no input 1",
    ),
    "one weight altered": (lambda d: flip(d / "flow.pt"), "flow.pt: damaged: "),
    "one voice altered": (lambda d: flip(d / "spk2info.pt"), "spk2info.pt: damaged: "),
    "cut ONNX": (lambda d: cut(d / "campplus.onnx", 0.5), "campplus.onnx: not a readable ONNX model"),
    "vocabulary with a gap": (
        lambda d: swap(d / "CosyVoice-BlankEN" / "vocab.json", ": 10", ": 9000"),
        "vocab.json: ids are not the numbers from 0 on",
    ),
    "broken vocabulary": (
        lambda d: cut(d / "CosyVoice-BlankEN" / "vocab.json", 0.5),
        "vocab.json: not readable as JSON",
    ),
    "foreign merge": (
        lambda d: (d / "CosyVoice-BlankEN" / "merges.txt").open("a").write("zzz qqq\n"),
        "merges.txt: 1 merges that do not fit the vocabulary: 'zzz qqq'",
    ),
    "tokenizer settings without specials": (
        lambda d: (d / "CosyVoice-BlankEN" / "tokenizer_config.json").write_text("{}"),
        "tokenizer_config.json: added_tokens_decoder is missing",
    ),
    "voice without speaker": (
        lambda d: voices(d / "spk2info.pt", lambda v: v.update(new={})),
        "spk2info.pt: voice 'new' has no usable speaker vector",
    ),
    "voice of another speaker encoder": (
        lambda d: voices(d / "spk2info.pt", lambda v: v.update(new={"embedding": torch.ones(1, 256)})),
        "spk2info.pt: voice 'new' has a speaker vector of 256, expected 192",
    ),
    "voice with foreign tokens": (
        lambda d: voices(
            d / "spk2info.pt", lambda v: v["demo_male"]["flow_prompt_speech_token"].view(-1)[:1].fill_(7000)
        ),
        "spk2info.pt: voice 'demo_male' has speech tokens outside 0..6560",
    ),
    "voice with foreign mel": (
        lambda d: voices(
            d / "spk2info.pt", lambda v: v["demo_male"].update(prompt_speech_feat=torch.ones(1, 134, 128))
        ),
        "spk2info.pt: voice 'demo_male' has no usable prompt mel of 80 bins",
    ),
    "list of voices": (lambda d: torch.save([1], d / "spk2info.pt"), "spk2info.pt: expected a dict of voices"),
    "code in voices": (lambda d: torch.save({"a": os.system}, d / "spk2info.pt"), "spk2info.pt: damaged, or holds"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(tiny: Path, name: str) -> None:
    damage, problem = DAMAGE[name]
    damage(tiny)
    inspection = inspect_checkpoint(tiny)
    assert not inspection.sound
    assert any(problem in found for found in inspection.problems), inspection.problems
    assert len(inspection.problems) == 1 or "speech tokenizer" in name, inspection.problems
    last = inspection.render().splitlines()[-1]
    assert last == f"- {inspection.problems[-1]}"


def test_several_problems_are_all_listed(tiny: Path) -> None:
    for name in ("missing tensor", "cut weights", "cut ONNX"):
        DAMAGE[name][0](tiny)
    inspection = inspect_checkpoint(tiny)
    assert [problem.split(":")[0] for problem in inspection.problems] == ["llm.pt", "flow.pt", "campplus.onnx"]
    assert "3 problems:" in inspection.render()


def test_text_rows_must_hold_the_tokenizer(tiny: Path) -> None:
    pieces = len(json.loads((tiny / "CosyVoice-BlankEN" / "vocab.json").read_text()))
    fewer = pieces + 14
    swap(tiny / "CosyVoice-BlankEN" / "config.json", f'"vocab_size": {ROWS}', f'"vocab_size": {fewer}')
    edit(tiny / "llm.pt", lambda s: s.update({k: v[:fewer] for k, v in s.items() if v.shape == (ROWS, 64)}))
    (problem,) = inspect_checkpoint(tiny).problems
    too_many = f"{pieces} pieces and the special tokens do not fit the model's {fewer} text rows"
    assert problem == f"CosyVoice-BlankEN/vocab.json: {too_many}"


def test_vocoder_saved_in_its_training_wrapper_is_sound(tiny: Path) -> None:
    state = read_state(tiny / "hift.pt")
    wrapped: dict[str, object] = {f"generator.{key}": value for key, value in state.items()}
    torch.save({**wrapped, "discriminator.a.weight": torch.ones(2), "epoch": 3, "step": 5}, tiny / "hift.pt")
    assert inspect_checkpoint(tiny).problems == ()


def test_old_spelling_of_weight_norm_is_sound(tiny: Path) -> None:
    names = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    old = {}
    for key, value in read_state(tiny / "hift.pt").items():
        for new, spelled in names.items():
            key = key.replace(new, spelled)
        old[key] = value
    torch.save(old, tiny / "hift.pt")
    assert inspect_checkpoint(tiny).problems == ()


def test_inspection_and_loading_agree_on_a_missing_block(tiny: Path) -> None:
    edit(tiny / "flow.pt", lambda s: [s.pop(key) for key in list(s) if key.startswith("encoder.up_encoders.0.")])
    (problem,) = inspect_checkpoint(tiny).problems
    assert problem.startswith("flow.pt: 19 missing: encoder.up_encoders.0.")
    with pytest.raises(CheckpointError, match=r"19 missing: encoder\.up_encoders\.0\."):
        FlowModel.from_state(read_state(tiny / "flow.pt"), TINY.flow)
