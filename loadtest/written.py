"""A text as a language model writes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from loadtest.scenario import Writing


async def written(text: str, writing: Writing) -> AsyncIterator[str]:
    """The text in pieces at the times a language model would have written them; a late piece is caught up."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, start in enumerate(range(0, len(text), writing.piece_characters)):
        await asyncio.sleep(began + number / writing.pieces_per_s - loop.time())
        yield text[start : start + writing.piece_characters]
