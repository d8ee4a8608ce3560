"""Calls side by side of which none may be left on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def all_ended(calls: Sequence[Awaitable[T]]) -> list[T]:
    """What all of them return, in their order.

    None is cancelled because another fails: the first error is raised when all have ended. What a
    call takes that is cancelled on its way to a table it may take all the same.
    """
    if len(calls) == 1:
        return [await calls[0]]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    for each in ended:
        if isinstance(each, BaseException):
            raise each
    return [each for each in ended if not isinstance(each, BaseException)]
