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
from vllm.platforms import current_platform


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
        if current_platform.is_cpu():
            for layer in self.model.layers:
                layer.self_attn.attn.register_forward_pre_hook(_values_in_numbers)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        scores: torch.Tensor | None = self.logits_processor(self.lm_head, hidden_states, self.lm_head.bias)
        return scores


def _values_in_numbers(
    _attention: torch.nn.Module, rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values `(T, C)` with NaN in the keys alone, for the sake of whoever has the blocks next.

    A block goes from one utterance to another as it is. The CPU kernel multiplies the values behind the new one's end
    by zero, which leaves NaN what it is, while scores of the keys there are replaced; kernels of GPUs read neither. Of
    the broken utterance itself all that follows is NaN because of its keys.
    """
    queries, keys, values = rows
    broken = ~values.isfinite().all(-1, keepdim=True)
    return queries, keys.masked_fill(broken, torch.nan), values.nan_to_num()
