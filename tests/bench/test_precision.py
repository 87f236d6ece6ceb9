"""The accuracy bench: distances are what they say, and narrower numbers cost more than rounding."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from cosyvoice_core.bench.__main__ import main
from cosyvoice_core.bench.precision import Material, log_spectral_distance, precision_table, run_precision
from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.random import TINY
from cosyvoice_core.errors import CheckpointError


def test_twice_as_loud_is_six_decibels_away() -> None:
    sound = torch.randn(24000, generator=torch.Generator().manual_seed(0))
    assert log_spectral_distance(sound, sound) == 0
    assert log_spectral_distance(2 * sound, sound) == pytest.approx(20 * math.log10(2), abs=1e-3)
    # What is 80 dB below the loudest bin is not looked at.
    hum = torch.sin(torch.arange(24000) * 0.5)
    assert log_spectral_distance(hum + 1e-6 * sound, hum) == pytest.approx(0, abs=1e-2)


def test_the_quick_command_writes_every_format_of_both_stages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["precision", "--quick", "--json", str(tmp_path / "figures.json")]) == 0
    record = json.loads((tmp_path / "figures.json").read_text())
    found = {(entry["stage"], entry["form"]): entry for entry in record["differences"]}
    narrow = {(stage, form) for stage in ("flow", "vocoder") for form in ("bfloat16", "float16")}
    assert set(found) == narrow | {("flow", "float32, at once")}
    rounding = found["flow", "float32, at once"]
    assert rounding["mel_max_abs"] < 5e-5
    for stage in ("flow", "vocoder"):
        # Eight bits against eleven.
        assert found[stage, "bfloat16"]["spectral_db"] > found[stage, "float16"]["spectral_db"] > 0
    assert found["flow", "bfloat16"]["mel_mean_abs"] > found["flow", "float16"]["mel_mean_abs"]
    assert found["flow", "float16"]["mel_mean_abs"] > 100 * rounding["mel_mean_abs"]
    assert found["flow", "float16"]["spectral_db"] > 100 * rounding["spectral_db"]
    assert {"machine", "date", "command"} <= set(record)
    shown = capsys.readouterr().out
    assert all(form in shown for _, form in found)


def test_a_stage_that_breaks_in_a_format_is_named_and_the_others_are_measured() -> None:
    material = Material.random("hot", TINY, seed=0, prompt=0, tokens=20)
    # More than float16 holds, and no matter to the other formats.
    key = next(key for key in material.flow if key.endswith("input_embedding.weight"))
    flow = dict(material.flow) | {key: material.flow[key] * 1e6}
    hot = Material("hot", material.config, flow, material.vocoder, material.utterances)
    results = run_precision([hot], [torch.bfloat16, torch.float16], torch.device("cpu"), lambda _: None)
    failed = {(result.stage, result.form) for result in results if result.failed}
    assert failed == {("flow", "float16")}
    assert "not finite" in "\n".join(precision_table(results))


def test_voices_of_a_checkpoint_say_what_the_others_said(demo_checkpoint: Path, tmp_path: Path) -> None:
    material = Material.of_checkpoint(CheckpointDirectory(demo_checkpoint))
    assert len(material.utterances) > 1
    assert all(len(spoken.prompt_mel) == 2 * len(spoken.prompt) for spoken in material.utterances)
    assert material.utterances[0].tokens.equal(material.utterances[1].prompt)
    assert material.utterances[-1].tokens.equal(material.utterances[0].prompt)
    (tmp_path / "cosyvoice2.yaml").write_bytes((demo_checkpoint / "cosyvoice2.yaml").read_bytes())
    (tmp_path / "CosyVoice-BlankEN").symlink_to((demo_checkpoint / "CosyVoice-BlankEN").absolute())
    with pytest.raises(CheckpointError, match="saved voices"):
        Material.of_checkpoint(CheckpointDirectory(tmp_path))
