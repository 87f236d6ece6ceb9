"""`python -m deployments voices`: what the store holds, from a shell; files of all flavours in, CosyVoice's own out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.voice.encoder import VoiceEncoder
from cosyvoice_core.voice.saved import Flavour, load_saved_voices, save_voices
from deployments.__main__ import main
from deployments.voices.record import VoiceRecord
from deployments.voices.store import VoiceStore
from tests.voices.made import made_prompt, same

PROMPTS = Path(__file__).parents[2] / "checkpoints" / "demo" / "prompts"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def voices(folder: str, action: str, *arguments: str) -> int:
    return main(["voices", action, *arguments, "--store", folder])


def test_add_list_and_remove(folder: str, capsys: pytest.CaptureFixture[str], demo_checkpoint: Path) -> None:
    audio, transcript = PROMPTS / "demo_deep.wav", (PROMPTS / "demo_deep.txt").read_text().strip()
    assert voices(folder, "add", "anna", str(audio), "--transcript", transcript, "--consent", "yes") == 0
    assert voices(folder, "add", "acme:bert", str(audio)) == 0
    store = VoiceStore(folder, FlowConfig())
    entry = store.entries()["anna"]
    record = store.records([entry])[entry]
    assert isinstance(record, VoiceRecord)
    assert record.consent == "yes"
    prompt = store.prompt(entry, record)
    encoded = VoiceEncoder.from_directory(demo_checkpoint).encode(audio).prompt
    np.testing.assert_array_equal(prompt.speech_tokens, encoded.speech_tokens)
    assert len(prompt.transcript_ids) > 3
    capsys.readouterr()
    assert voices(folder, "add", "anna", str(audio)) == 1
    assert "already" in capsys.readouterr().err
    assert voices(folder, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["acme:bert", "anna"]
    assert voices(folder, "remove", "anna", "nobody") == 1
    told = capsys.readouterr()
    assert ("anna: removed" in told.out, "nobody: there is no such voice" in told.err) == (True, True)
    assert list(store.entries()) == ["acme:bert"]


def test_a_damaged_voice_is_listed_as_such_and_can_be_removed(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(folder).parent / "in.pt"
    save_voices(file, {"anna": made_prompt(1), "bert": made_prompt(2)})
    assert voices(folder, "import", str(file)) == 0
    store = VoiceStore(folder, FlowConfig())
    (Path(folder) / store.entries()["bert"].record_file).write_bytes(b"{")
    capsys.readouterr()
    assert voices(folder, "list") == 1
    assert "DAMAGED" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("bert"))
    assert voices(folder, "export", str(file)) == 1
    assert voices(folder, "remove", "bert") == 0
    assert voices(folder, "list") == 0


@pytest.mark.parametrize("flavour", list(Flavour))
def test_files_of_each_flavour_come_in_and_go_out_again(folder: str, tmp_path: Path, flavour: Flavour) -> None:
    given, written = tmp_path / "in.pt", tmp_path / "out.pt"
    save_voices(given, {"中文女": made_prompt(1), "vector": made_prompt(2, tokens=0)}, flavour)
    assert voices(folder, "import", str(given)) == 0
    assert voices(folder, "export", str(written), "--flavour", flavour.value) == 0
    before, after = load_saved_voices(given), load_saved_voices(written)
    assert sorted(after) == ["vector", "中文女"]
    assert all(same(before[name], after[name]) for name in before)
    one, other = torch.load(given, weights_only=True), torch.load(written, weights_only=True)
    for name, entry in one.items():
        assert set(entry) == set(other[name])
        for key, value in entry.items():
            assert (
                torch.equal(value, other[name][key]) if isinstance(value, torch.Tensor) else value == other[name][key]
            )


def test_what_is_exported_is_what_cosyvoice_s_own_runtime_passes_on(folder: str, tmp_path: Path) -> None:
    """Its front end copies an entry into the model's inputs (zero-shot), or takes `embedding` from it (sft)."""
    given, written = tmp_path / "in.pt", tmp_path / "out.pt"
    save_voices(given, {"anna": made_prompt(1, tokens=30)})
    voices(folder, "import", str(given))
    voices(folder, "export", str(written), "anna")
    entry = torch.load(written, weights_only=True)["anna"]
    shapes = {key: tuple(value.shape) for key, value in entry.items()}
    assert shapes == {
        "prompt_text": (1, 5),
        "prompt_text_len": (1,),
        "llm_prompt_speech_token": (1, 30),
        "llm_prompt_speech_token_len": (1,),
        "flow_prompt_speech_token": (1, 30),
        "flow_prompt_speech_token_len": (1,),
        "prompt_speech_feat": (1, 60, 80),
        "prompt_speech_feat_len": (1,),
        "llm_embedding": (1, 192),
        "flow_embedding": (1, 192),
        "embedding": (1, 192),
    }


def test_import_of_some_for_an_owner_and_names_that_are_none(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in.pt"
    save_voices(file, {"anna": made_prompt(1), "bert": made_prompt(2), "../x": made_prompt(3)})
    assert voices(folder, "import", str(file)) == 1
    assert "'../x' is no name" in capsys.readouterr().err
    store = VoiceStore(folder, FlowConfig())
    assert store.entries() == {}
    assert voices(folder, "import", str(file), "anna", "--owner", "acme") == 0
    assert list(store.entries()) == ["acme:anna"]
    assert voices(folder, "import", str(file), "nobody") == 1
    assert "there is no voice 'nobody'" in capsys.readouterr().err
    assert voices(folder, "import", str(tmp_path / "absent.pt")) == 1


def test_without_a_store_it_says_where_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("applications: [{name: a, import_path: 'deployments.app:build', args: {}, deployments: []}]")
    assert main(["voices", "list", "--config", str(config)]) == 2
    assert "voices.url" in capsys.readouterr().err


def test_the_environment_goes_before_the_config(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_voices(tmp_path / "in.pt", {"anna": made_prompt(1)})
    monkeypatch.setenv("COSYVOICE_VOICES", folder)
    assert main(["voices", "import", str(tmp_path / "in.pt")]) == 0
    assert list(VoiceStore(folder, FlowConfig()).entries()) == ["anna"]
