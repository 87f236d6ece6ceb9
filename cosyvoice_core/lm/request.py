"""What an LM engine is asked for and what it reports. Knows no engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.lm.plan import FinishReason

SEED_LIMIT = 1 << 64


def _check_seed(seed: int) -> None:
    if not 0 <= seed < SEED_LIMIT:
        raise InputError("seed", f"{seed} is out of range", f"0..{SEED_LIMIT - 1}")


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Speech tokens for a prompt whose text is complete.

    prompt_ids: merged ids; min_tokens: eos is not legal before so many tokens; max_tokens: the answer ends there;
    history: tokens an earlier engine has generated already. They are fed, not drawn again and not reported, and
    generation goes on exactly as it would have: a draw depends on the seed and its position alone.
    """

    prompt_ids: tuple[int, ...]
    max_tokens: int
    min_tokens: int = 0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0
    greedy: bool = False
    history: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        if not self.prompt_ids:
            raise InputError("prompt", "is empty", "at least one id")
        if self.max_tokens < 1:
            raise InputError("text", "is too short to be spoken", "a text of at least one token")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise InputError("min_tokens", f"{self.min_tokens} is out of range", f"0..{self.max_tokens}")
        if len(self.history) > self.max_tokens:
            raise InputError("history", f"has {len(self.history)} tokens", f"at most {self.max_tokens}")


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Speech tokens for a text that arrives in portions (bi-stream).

    Ids of text are the tokenizer's own. min_ratio, max_ratio: bounds of speech tokens per text token; preamble_ids:
    prompt text that is not interleaved. history: as in `TokenRequest`, with the vocabulary's fill id wherever an
    event said `closed_block`; it is fed as the text arrives again.
    """

    prompt_text_ids: tuple[int, ...] = ()
    prompt_speech: tuple[int, ...] = ()
    preamble_ids: tuple[int, ...] = ()
    min_ratio: float = 0.0
    max_ratio: float = 20.0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0
    greedy: bool = False
    history: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        if not 0.0 <= self.min_ratio <= self.max_ratio:
            raise InputError("min_ratio", f"{self.min_ratio} is out of range", f"0..{self.max_ratio}")


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """News of one sequence.

    tokens: speech tokens since its last event; reason: why it is finished; error: set when it failed, in which case
    nothing more will come; closed_block: the model ended a bi-stream block early, right after `tokens`.
    """

    sequence: int
    tokens: tuple[int, ...]
    finished: bool
    reason: FinishReason | None = None
    error: EngineError | None = None
    closed_block: bool = False
