"""Stretches of one voice's speech that the flow is trained on: whole utterances behind each other, cut to one length.

No batch is padded, so the flow's own modules run as they are. Knows arrays, not networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tools.demo_voice.codec.train import ALIGNED, HEARD
from tools.demo_voice.data.corpus import AnyArray, Corpus
from tools.demo_voice.speaker.train import SPEAKER


@dataclass(frozen=True, slots=True)
class FlowBatch:
    """tokens (B, L); ahead (B, 3) tokens that follow, None where speech ends; mel (B, 2 L, 80); speaker (B, 192);
    prompt (B,) frames whose mel is given."""

    tokens: Tensor
    ahead: Tensor | None
    mel: Tensor
    speaker: Tensor
    prompt: Tensor

    def to(self, device: torch.device) -> FlowBatch:
        ahead = None if self.ahead is None else self.ahead.to(device)
        return FlowBatch(
            self.tokens.to(device), ahead, self.mel.to(device), self.speaker.to(device), self.prompt.to(device)
        )


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """shortest, longest: tokens of a window; spoken_prompt: share with a whole utterance as prompt, cut_prompt: with
    a part of one, the others with none."""

    shortest: int = 60
    longest: int = 200
    spoken_prompt: float = 0.6
    cut_prompt: float = 0.2

    def __post_init__(self) -> None:
        if not 4 <= self.shortest <= self.longest:
            raise ValueError(f"need 4 <= shortest <= longest, got {self.shortest} and {self.longest}")
        if not 0.0 <= self.spoken_prompt + self.cut_prompt <= 1.0:
            raise ValueError("shares of prompts must not be more than all")


class Windows:
    """Draws windows of a corpus."""

    def __init__(self, corpus: Corpus, plan: WindowPlan, lookahead: int) -> None:
        self._corpus, self._plan, self._lookahead = corpus, plan, lookahead
        self._voices = list(corpus.by_voice().values())

    def draw(self, count: int, random: np.random.Generator) -> FlowBatch:
        """So many of one random length; half of the batches end where speech ends, the others within it."""
        length = int(random.integers(self._plan.shortest, self._plan.longest + 1))
        ends = bool(random.random() < 0.5)
        rows = [self._window(length, ends, random) for _ in range(count)]
        tokens, ahead, mel, speaker, prompt = zip(*rows, strict=True)
        return FlowBatch(
            tokens=_stacked(tokens),
            ahead=None if ends else _stacked(ahead),
            mel=_stacked(mel),
            speaker=_stacked(speaker),
            prompt=torch.tensor(prompt),
        )

    def _window(
        self, length: int, ends: bool, random: np.random.Generator
    ) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray, int]:
        numbers = self._voices[int(random.integers(len(self._voices)))]
        first = int(random.choice(numbers))
        chosen, total = [first], self._corpus.utterances[first].tokens
        while total < length + self._lookahead:
            chosen.append(int(random.choice(numbers)))
            total += self._corpus.utterances[chosen[-1]].tokens
        # A prompt's tokens are heard; the language model's own are as the alignment has them.
        kinds = [HEARD, *(HEARD if random.random() < 0.5 else ALIGNED for _ in chosen[1:])]
        tokens = np.concatenate([self._corpus.derived(kind, n) for kind, n in zip(kinds, chosen, strict=True)])
        mel = np.concatenate([self._corpus.mel(number) for number in chosen])
        begin = total - length if ends else 0
        stop = begin + length
        prompt = self._prompt(self._corpus.utterances[first].tokens - begin, length, random)
        return (
            tokens[begin:stop],
            tokens[stop : stop + self._lookahead],
            mel[2 * begin : 2 * stop],
            self._corpus.derived(SPEAKER, first),
            2 * prompt,
        )

    def _prompt(self, spoken: int, length: int, random: np.random.Generator) -> int:
        """Tokens of the prompt; at least a tenth of the window is left to be spoken."""
        kind = random.random()
        if kind < self._plan.spoken_prompt:
            return int(np.clip(spoken, 0, length - length // 10 - 1))
        if kind < self._plan.spoken_prompt + self._plan.cut_prompt:
            return int(random.integers(1, max(2, length // 2)))
        return 0


def _stacked(rows: Sequence[AnyArray]) -> Tensor:
    return torch.from_numpy(np.stack(rows))
