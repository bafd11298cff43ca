"""Clients that disconnect before they are answered: their queries are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")

# What is answered within this is not worth a look at the connection.
SOON_SECONDS = 0.02


class ClientGone(Exception):
    """The client disconnected before it was answered."""


async def unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of ``work``, which is cancelled when the client disconnects: :class:`ClientGone`.

    The request's body must have been received, or there must be none.
    """
    working = asyncio.ensure_future(work)
    leaving: asyncio.Future[None] | None = None
    try:
        await asyncio.wait({working}, timeout=SOON_SECONDS)
        if not working.done():
            leaving = asyncio.ensure_future(_gone(receive))
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        left = [task for task in (working, leaving) if task is not None and not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # A refusal's traceback has this frame: with the task that has the refusal it would stay.
        del working, leaving, left


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
