"""Official keys to merged tensors: what goes where, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cosyvoice_core.config import LMConfig
from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.lm.body import SpeechBody
from cosyvoice_core.lm.merge import checkpoint_layout, merge
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

CONFIG = LMConfig(
    hidden=8,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=4,
    intermediate=12,
    text_rows=9,
    speech_tokens=20,
    max_positions=32,
)
COSYVOICE2 = SpeechVocabulary.cosyvoice2(9, 20)
COSYVOICE3 = SpeechVocabulary.cosyvoice3(9, 20)
TIED = "llm.model.lm_head.weight"


def state(vocabulary: SpeechVocabulary, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    layout = checkpoint_layout(CONFIG, vocabulary)
    return {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in layout.items()}


def test_tables_are_joined_in_the_order_of_the_ids() -> None:
    source = state(COSYVOICE2)
    merged = merge(source, CONFIG, COSYVOICE2)
    table = merged["model.embed_tokens.weight"]
    assert table.shape == (COSYVOICE2.input_rows, CONFIG.hidden)
    assert torch.equal(table[: COSYVOICE2.head_rows], source["speech_embedding.weight"])
    assert torch.equal(table[[COSYVOICE2.sos, COSYVOICE2.task]], source["llm_embedding.weight"])
    assert torch.equal(table[COSYVOICE2.text([0, 8])], source["llm.model.model.embed_tokens.weight"][[0, 8]])
    assert torch.equal(merged["lm_head.weight"], source["llm_decoder.weight"])
    assert torch.equal(merged["lm_head.bias"], source["llm_decoder.bias"])


def test_names_are_those_of_a_plain_decoder_without_its_text_head() -> None:
    merged = merge(state(COSYVOICE2), CONFIG, COSYVOICE2)
    body = {name for name in merged if name.startswith("model.layers.1.")}
    assert {name for name in merged if not name.startswith("model.layers.")} == {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "lm_head.bias",
    }
    assert "model.layers.1.self_attn.q_proj.bias" in body
    assert len(body) == 12


def test_cosyvoice3_has_no_marker_rows_and_no_bias() -> None:
    source = state(COSYVOICE3)
    merged = merge(source, CONFIG, COSYVOICE3)
    assert "llm_embedding.weight" not in source
    assert "lm_head.bias" not in merged
    assert merged["model.embed_tokens.weight"].shape[0] == COSYVOICE3.input_rows
    assert SpeechBody(merged, CONFIG).head_rows == 220


def test_half_precision_storage_is_widened() -> None:
    halves = state(COSYVOICE2, torch.float16)
    merged = merge(halves, CONFIG, COSYVOICE2)
    assert {tensor.dtype for tensor in merged.values()} == {torch.float32}
    assert torch.equal(merged["model.norm.weight"], halves["llm.model.model.norm.weight"].float())


def test_dtype_can_be_chosen() -> None:
    merged = merge(state(COSYVOICE2), CONFIG, COSYVOICE2, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}


def test_the_tied_text_head_may_be_absent() -> None:
    source = state(COSYVOICE2)
    with_head = merge(source, CONFIG, COSYVOICE2)
    del source[TIED]
    assert merge(source, CONFIG, COSYVOICE2).keys() == with_head.keys()


@pytest.mark.parametrize("vocabulary", [COSYVOICE2, COSYVOICE3], ids=["cosyvoice2", "cosyvoice3"])
def test_every_tensor_is_needed_in_its_shape(vocabulary: SpeechVocabulary) -> None:
    complete = state(vocabulary)
    for key, value in complete.items():
        if key != TIED:
            with pytest.raises(CheckpointError, match=f"missing: {key}"):
                merge({name: tensor for name, tensor in complete.items() if name != key}, CONFIG, vocabulary)
        with pytest.raises(CheckpointError, match=f"mis-shaped: {key}"):
            merge(complete | {key: torch.cat([value, value])}, CONFIG, vocabulary)


def test_an_unknown_tensor_is_named_with_its_file() -> None:
    with pytest.raises(CheckpointError, match=r"models/llm.pt .*unexpected: extra.weight \[3\]"):
        merge(state(COSYVOICE2) | {"extra.weight": torch.zeros(3)}, CONFIG, COSYVOICE2, "models/llm.pt")


def test_the_other_family_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"llm_decoder\.bias"):
        merge(state(COSYVOICE3), CONFIG, COSYVOICE2)


def test_a_vocabulary_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="text rows"):
        merge(state(COSYVOICE2), CONFIG, SpeechVocabulary.cosyvoice2(10, 20))
