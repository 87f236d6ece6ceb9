"""The interface behind which engines of the language model are exchanged."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from deployments.messages import Finish, StreamCutError
from deployments.work import CpuClock


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Tokens of one sequence in order; `finish` is set on the last batch only.

    closed_block: a stream's block was ended early right after `ids`; its token log then needs the fill id there.
    """

    ids: tuple[int, ...]
    finish: Finish | None = None
    closed_block: bool = False


class EngineDiedError(StreamCutError):
    """The engine decodes nothing any more; its utterances must go on elsewhere."""


class TokenEngine(Protocol):
    """Decodes many sequences at once on one replica."""

    name: str

    def generate(self, request: TokenRequest, lead_s: float = 0.0) -> AsyncGenerator[TokenBatch, None]:
        """Tokens beyond `request.history`; closing the generator frees the sequence.

        lead_s: sound that the listener has before this is heard; who has less may go first when places are few.
        Raises EngineError when this sequence fails, InputError when it cannot be decoded at all, EngineDiedError when
        all sequences have failed.
        """
        ...

    def generate_stream(
        self, request: StreamRequest, text: AsyncIterator[tuple[int, ...]]
    ) -> AsyncGenerator[TokenBatch, None]:
        """The same for a text whose ids arrive in portions of any size and end when `text` does (bi-stream)."""
        ...

    @property
    def held(self) -> int:
        """Sequences that the engine keeps or that wait for a place in it; 0 soon after the last has ended."""
        ...

    def cpu_clock(self) -> CpuClock | None:
        """CPU seconds that decoding has taken so far; None where another device decodes, or nobody knows."""
        ...

    async def check_health(self) -> None:
        """Raise EngineDiedError when the engine cannot serve any more."""
        ...

    def shutdown(self) -> None:
        """Free what the engine holds outside this process, or threads in it; nothing is decoded afterwards."""
        ...
