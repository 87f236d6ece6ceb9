"""Mailboxes as actors: one per ingress replica, found by name from any node, gone when the replica goes.

Waiting is done inside the actor, so nobody polls. A mailbox that was lost comes back empty: texts in it fail, those
that follow do not.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cosyvoice_core.errors import InputError
from deployments.mailbox import Mailbox, OverloadedError, Piece, Pieces, TextSource

_NAMESPACE = "cosyvoice"
# Each waiting reader is one running call of the actor.
_CALLS = 10_000


class MailboxOwner:
    """The mailbox of one ingress replica; lives as long as the process that made it."""

    def __init__(self, max_texts: int, max_size: int, forget_after_s: float) -> None:
        self.name = f"cosyvoice-texts-{uuid.uuid4().hex}"
        actor: Any = ray.remote(Mailbox)
        # On its owner's node, so that no other machine's death takes the texts.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor = actor.options(
            name=self.name,
            namespace=_NAMESPACE,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=_CALLS,
            scheduling_strategy=here,
        ).remote(max_texts, max_size, forget_after_s)

    async def open(self) -> TextSource:
        """A new text. Raises OverloadedError when there are too many."""
        source = TextSource(self.name, uuid.uuid4().hex)
        await _answer(self._actor.open.remote(source.text))
        return source

    async def put(self, source: TextSource, pieces: tuple[Piece, ...], end: bool = False) -> None:
        await _answer(self._actor.put.remote(source.text, pieces, end))

    def drop(self, source: TextSource) -> None:
        """Forget a text, without waiting."""
        self._actor.drop.remote(source.text)

    async def count(self) -> int:
        count: int = await _answer(self._actor.count.remote())
        return count


class TextReader:
    """Reads texts from any mailbox in the cluster."""

    def __init__(self) -> None:
        self._actors: dict[str, Any] = {}
        # The event loop alone would not keep them.
        self._dropping: set[asyncio.Task[None]] = set()

    async def pieces(self, source: TextSource, idle_s: float) -> AsyncIterator[Piece]:
        """All pieces of a text in order, until it ends.

        Raises InputError when nothing comes for `idle_s` seconds, when the text is dropped, or its mailbox is gone.
        """
        actor = await self._actor(source.mailbox)
        position = 0
        while True:
            try:
                found: Pieces = await _answer(actor.read.remote(source.text, position, idle_s))
            except RayActorError:
                self._actors.pop(source.mailbox, None)
                raise InputError("input", "the text was lost with the replica that took it") from None
            for piece in found.pieces:
                yield piece
            if found.ended:
                return
            if not found.pieces:
                raise InputError("input", f"no text came for {idle_s:g} s", "more text, or its end, before that")
            position += len(found.pieces)

    def drop(self, source: TextSource) -> None:
        """Forget a text, read or not, without waiting; one that is gone already is no error."""
        if source.mailbox in self._actors:
            self._actors[source.mailbox].drop.remote(source.text)
            return
        dropping = asyncio.get_running_loop().create_task(self._find_and_drop(source))
        self._dropping.add(dropping)
        dropping.add_done_callback(self._dropping.discard)

    async def _find_and_drop(self, source: TextSource) -> None:
        try:
            (await self._actor(source.mailbox)).drop.remote(source.text)
        except InputError:
            return

    async def _actor(self, name: str) -> Any:
        if name not in self._actors:
            find = partial(ray.get_actor, name, namespace=_NAMESPACE)
            try:
                self._actors[name] = await asyncio.get_running_loop().run_in_executor(None, find)
            except ValueError:
                raise InputError("input", "the text was lost with the replica that took it") from None
        return self._actors[name]


class TextWriter:
    """Writes one text, from outside or inside an event loop."""

    def __init__(self, source: TextSource) -> None:
        self._actor: Any = ray.get_actor(source.mailbox, namespace=_NAMESPACE)
        self._text = source.text

    def put(self, piece: str) -> None:
        """More of the text. Raises InputError when nobody speaks it any more, or it is too long."""
        _answer_now(self._actor.put.remote(self._text, (piece,)))

    def end(self) -> None:
        """The text is complete."""
        _answer_now(self._actor.put.remote(self._text, (), True))

    def drop(self) -> None:
        """Forget the text, without waiting."""
        self._actor.drop.remote(self._text)

    async def aput(self, piece: str) -> None:
        """`put` inside an event loop."""
        await _answer(self._actor.put.remote(self._text, (piece,)))

    async def aend(self) -> None:
        """`end` inside an event loop."""
        await _answer(self._actor.put.remote(self._text, (), True))


async def _answer(reference: Any) -> Any:
    try:
        return await reference
    except RayTaskError as error:
        raise cause_of(error) from None


def _answer_now(reference: Any) -> None:
    try:
        ray.get(reference)
    except RayTaskError as error:
        raise cause_of(error) from None


def cause_of(error: RayTaskError) -> BaseException:
    """What a caller can act on, if that is what failed in another process; else the error itself."""
    cause: BaseException | None = error
    while isinstance(cause, RayTaskError):
        cause = cause.cause
    return cause if isinstance(cause, InputError | OverloadedError) else error
