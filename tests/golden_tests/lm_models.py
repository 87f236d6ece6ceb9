"""Language models of a golden set, and the original's greedy decoding, which the product does not offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cosyvoice_core.checkpoint.settings import read_lm_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import LMConfig
from cosyvoice_core.inputs import UtteranceInputs
from cosyvoice_core.lm.body import Span, SpeechBody
from cosyvoice_core.lm.merge import merge
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

COSYVOICE2_EXTRA_ROWS = 3
COSYVOICE3_EXTRA_ROWS = 200


@dataclass(frozen=True)
class GoldenLM:
    body: SpeechBody
    vocabulary: SpeechVocabulary
    config: LMConfig


def read_config(golden: Path) -> LMConfig:
    """Dims of a golden set's language model; the size of its codebook is that of its head."""
    return _config(golden, read_state(golden / "ckpt" / "llm.pt"), COSYVOICE2_EXTRA_ROWS)


def vocabulary_of(config: LMConfig) -> SpeechVocabulary:
    return SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)


def cosyvoice2(golden: Path) -> GoldenLM:
    state = read_state(golden / "ckpt" / "llm.pt")
    config = _config(golden, state, COSYVOICE2_EXTRA_ROWS)
    vocabulary = vocabulary_of(config)
    return GoldenLM(SpeechBody(merge(state, config, vocabulary), config), vocabulary, config)


def cosyvoice3(golden: Path) -> GoldenLM:
    state = read_state(golden / "cv3_llm.pt")
    config = _config(golden, state, COSYVOICE3_EXTRA_ROWS)
    vocabulary = SpeechVocabulary.cosyvoice3(config.text_rows, config.speech_tokens)
    return GoldenLM(SpeechBody(merge(state, config, vocabulary), config), vocabulary, config)


def _config(golden: Path, state: dict[str, Tensor], extra_rows: int) -> LMConfig:
    speech_tokens = state["llm_decoder.weight"].shape[0] - extra_rows
    return read_lm_config(golden / "ckpt" / "CosyVoice-BlankEN" / "config.json", speech_tokens=speech_tokens)


def inputs(case: dict[str, list[int]]) -> UtteranceInputs:
    """The LM's part of a request; the flow decoder's is left empty."""
    return UtteranceInputs(
        text_ids=np.array(case["text"], np.int32),
        lm_prompt_text_ids=np.array(case["prompt_text"], np.int32),
        lm_prompt_speech=np.array(case["prompt_speech"], np.int32),
        flow_prompt_tokens=np.zeros(0, np.int32),
        flow_prompt_mel=np.zeros((0, 80), np.float32),
        speaker=np.zeros(192, np.float32),
    )


class Decoding:
    """One sequence, fed piece by piece."""

    def __init__(self, lm: GoldenLM) -> None:
        self._body = lm.body
        self._cache = lm.body.new_cache()

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Logits `(len(ids), head_rows)` after each of the next ids."""
        start = self._cache.length
        hidden = self._body.forward(ids, [Span(self._cache, start, len(ids))])
        self._cache.length = start + len(ids)
        return self._body.logits(hidden)


def greedy(
    lm: GoldenLM, prompt: Sequence[int], min_tokens: int, max_tokens: int, *, not_before_min: Sequence[int]
) -> tuple[list[int], int | None]:
    """Best tokens until any stop id, and that id; `not_before_min` are masked for the first `min_tokens`."""
    decoding = Decoding(lm)
    tokens: list[int] = []
    unfed = list(prompt)
    for position in range(max_tokens):
        scores = decoding.feed(unfed)[-1].clone()
        if position < min_tokens:
            scores[list(not_before_min)] = -torch.inf
        best = int(scores.argmax())
        if best in lm.vocabulary.stop_ids:
            return tokens, best
        tokens.append(best)
        unfed = [best]
    return tokens, None
