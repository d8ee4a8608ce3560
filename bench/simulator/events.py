"""Virtual time: what happens next, and nothing in between."""

from __future__ import annotations

import heapq
import itertools
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

Arrange = Callable[[Callable[[], None]], object]
"""Sees to it that what it is given is called once, later."""


@types.coroutine
def until(arrange: Arrange) -> Generator[Arrange, None, None]:
    """Go on when what is arranged calls; for what `Events.begin` has begun."""
    yield arrange


class Event:
    """Something that will be done at a time, unless it is cancelled before."""

    __slots__ = ("_action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do not do it."""
        self._action = None

    def happen(self) -> None:
        """Do it, once."""
        action, self._action = self._action, None
        if action is not None:
            action()


class Events:
    """Events in the order of their times, those of one time in the order they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Event]] = []
        self._numbers = itertools.count()

    def clock(self) -> float:
        """The time, in seconds since the beginning."""
        return self.now

    def after(self, delay_s: float, action: Callable[[], None]) -> Event:
        """Do something so much later."""
        event = Event(action)
        heapq.heappush(self._heap, (self.now + delay_s, next(self._numbers), event))
        return event

    def every(self, period_s: float, action: Callable[[], None], *, first_s: float = 0.0) -> None:
        """Do something again and again, for ever."""

        def again() -> None:
            action()
            self.after(period_s, again)

        self.after(first_s, again)

    def begin(self, work: Coroutine[Any, None, None]) -> None:
        """Do something that takes time: its waits are `sleep` and `until`, and nothing else."""

        def go_on() -> None:
            try:
                arrange = work.send(None)
            except StopIteration:
                return
            arrange(go_on)

        go_on()

    async def side_by_side(self, works: Iterable[Awaitable[T]]) -> list[T]:
        """The results of all of them, which begin together; for what `begin` has begun."""
        begun = list(works)
        results: dict[int, T] = {}
        all_ended: list[Callable[[], None]] = []

        async def one(number: int, work: Awaitable[T]) -> None:
            results[number] = await work
            if len(results) == len(begun) and all_ended:
                all_ended[0]()

        for number, work in enumerate(begun):
            self.begin(one(number, work))
        if len(results) < len(begun):
            await until(all_ended.append)
        return [results[number] for number in range(len(begun))]

    async def sleep(self, delay_s: float) -> None:
        """Go on so much later; for what `begin` has begun."""
        await until(partial(self.after, delay_s))

    def run(self, until: float) -> None:
        """Let everything happen that is due up to a time."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, event = heapq.heappop(self._heap)
            event.happen()
        self.now = max(self.now, until)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for nothing: the use cases over ports in memory.

    Raises:
        RuntimeError: it waits after all, which would take time that is not modelled.
    """
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise RuntimeError("this coroutine waits for something: it has no place in virtual time")
