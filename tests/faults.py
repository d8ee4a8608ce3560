"""Fault injection: any port's implementation, wrapped so that chosen calls fail."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

T = TypeVar("T")


def failing_before(target: T, **faults: Sequence[BaseException | None]) -> T:
    """`target`, but the next calls of the named coroutines raise instead of running.

    One entry a call; None, or the end of the list, lets the call through:
    `failing_before(queue, send=[Unavailable("no"), None, Unavailable("no")])`.
    """
    return cast(T, _Faulty(target, faults, runs_first=False))


def failing_after(target: T, **faults: Sequence[BaseException | None]) -> T:
    """Like `failing_before`, but the call takes effect and only its answer is lost."""
    return cast(T, _Faulty(target, faults, runs_first=True))


class _Faulty:
    def __init__(
        self, target: Any, faults: Mapping[str, Sequence[BaseException | None]], runs_first: bool
    ) -> None:
        for name in faults:
            if not inspect.iscoroutinefunction(getattr(target, name)):
                raise TypeError(f"{name} is not a coroutine of {type(target).__name__}")
        self._target = target
        self._faults = {name: list(errors) for name, errors in faults.items()}
        self._runs_first = runs_first

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if name not in self._faults:
            return attribute

        async def faulty(*args: Any, **kwargs: Any) -> Any:
            pending = self._faults[name]
            error = pending.pop(0) if pending else None
            if error is None:
                return await attribute(*args, **kwargs)
            if self._runs_first:
                await attribute(*args, **kwargs)
            raise error

        return faulty
