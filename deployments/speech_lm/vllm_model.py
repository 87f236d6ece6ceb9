"""The network as vLLM runs it: a Qwen2 body that reads merged ids and a head with a bias over speech ids.

Imported by the engine process only; `vllm_plugin` names it. Source: docs/model.md, "Merged vocabulary".
"""

from __future__ import annotations

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.utils import maybe_prefix


class SpeechTokenLM(Qwen2ForCausalLM):
    """Input table `(input_vocab_size, hidden)`, head `(vocab_size, hidden)` with bias; all else is the parent's."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        config, quantisation = self.config, vllm_config.quant_config
        self.model.embed_tokens = VocabParallelEmbedding(
            config.input_vocab_size,
            config.hidden_size,
            quant_config=quantisation,
            prefix=maybe_prefix(prefix, "model.embed_tokens"),
        )
        self.lm_head = ParallelLMHead(
            config.vocab_size,
            config.hidden_size,
            bias=True,
            quant_config=quantisation,
            prefix=maybe_prefix(prefix, "lm_head"),
        )
        self.logits_processor = LogitsProcessor(config.vocab_size)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        scores: torch.Tensor | None = self.logits_processor(self.lm_head, hidden_states, self.lm_head.bias)
        return scores
