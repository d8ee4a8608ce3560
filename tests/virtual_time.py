"""An event loop whose clock jumps to the next thing that is due: waiting takes no time at all."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.BaseSelector):
    """Never waits, but notes for how long it would have."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.waited_s = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing is due")
        self.waited_s += max(0.0, timeout)
        return self._real.select(0)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop for `asyncio.Runner`, for work in several pieces."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.waited_s


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives that only sleeps and computes."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
