"""Coroutines and streams that run side by side, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

MAX_UNREAD = 64

T = TypeVar("T")


async def all_of(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of them return; when one raises, the others are cancelled."""
    if len(calls) == 1:
        return [await calls[0]]
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _cancelled(tasks)


async def merged(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """What all of them yield, as it comes."""
    if len(sources) == 1:
        async with aclosing(sources[0]) as only:
            async for each in only:
                yield each
        return
    unread: asyncio.Queue[tuple[T] | Exception | None] = asyncio.Queue(MAX_UNREAD)

    async def pump(source: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(source):
                async for each in source:
                    await unread.put((each,))
        except Exception as error:  # noqa: BLE001 - raised again where the whole is read
            await unread.put(error)
        else:
            await unread.put(None)

    pumps = [asyncio.create_task(pump(source)) for source in sources]
    try:
        unfinished = len(pumps)
        while unfinished:
            found = await unread.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                unfinished -= 1
            else:
                yield found[0]
    finally:
        await _cancelled(pumps)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
