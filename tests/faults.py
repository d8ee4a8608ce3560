"""Fault injection: any port's implementation, wrapped so that chosen calls fail."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

T = TypeVar("T")


def failing_before(target: T, **faults: Sequence[BaseException | None]) -> T:
    """`target`, but the next calls of the named coroutines raise instead of running.

    So do the next entries of blocks (`async with store.recording(job)`).

    One entry a call; None, or the end of the list, lets the call through:
    `failing_before(queue, send=[Unavailable("no"), None, Unavailable("no")])`.
    """
    return cast(T, _Faulty(target, faults, runs_first=False))


def failing_after(target: T, **faults: Sequence[BaseException | None]) -> T:
    """Like `failing_before`, but the call takes effect and only its answer is lost.

    A block raises when it has been left.
    """
    return cast(T, _Faulty(target, faults, runs_first=True))


class _Faulty:
    def __init__(
        self, target: Any, faults: Mapping[str, Sequence[BaseException | None]], runs_first: bool
    ) -> None:
        for name in faults:
            method = getattr(target, name)
            if not inspect.iscoroutinefunction(method) and not _makes_block(method):
                raise TypeError(f"{name} is no coroutine or block of {type(target).__name__}")
        self._target = target
        self._faults = {name: list(errors) for name, errors in faults.items()}
        self._runs_first = runs_first

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if name not in self._faults:
            return attribute

        def next_error() -> BaseException | None:
            pending = self._faults[name]
            return pending.pop(0) if pending else None

        @asynccontextmanager
        async def faulty_block(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            error = next_error()
            if error is not None and not self._runs_first:
                raise error
            async with attribute(*args, **kwargs) as value:
                yield value
            if error is not None:
                raise error

        async def faulty(*args: Any, **kwargs: Any) -> Any:
            error = next_error()
            if error is None:
                return await attribute(*args, **kwargs)
            if self._runs_first:
                await attribute(*args, **kwargs)
            raise error

        return faulty_block if _makes_block(attribute) else faulty


def _makes_block(method: Callable[..., Any]) -> bool:
    returns = method.__annotations__.get("return", "")
    is_generator = inspect.isasyncgenfunction(inspect.unwrap(method))
    return is_generator or "AbstractAsyncContextManager" in str(returns)
