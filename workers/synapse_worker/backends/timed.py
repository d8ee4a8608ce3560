"""Work that takes time and no processor: a stand-in for an accelerator with so many slots.

Each slot takes the next item as soon as its own is done. What waits is taken by priority, then by
age, so an urgent request of one item passes the rest of a large one.
"""

import heapq
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from synapse_worker.load import Load

POLL_S = 0.02
"""How often a file of faults is looked at."""


@dataclass(frozen=True)
class Faults:
    """How the work is disturbed: slower by a factor, not at all, or with an error for answer."""

    slow_factor: float = 1.0
    hang: bool = False
    error: str = ""


NO_FAULTS = Faults()


class FaultsFile:
    """Faults as a file tells them, JSON with the fields of `Faults`; without the file none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._looked_at = -POLL_S
        self._faults = NO_FAULTS

    def now(self) -> Faults:
        """What the file said a moment ago; one that cannot be read changes nothing."""
        if self._path is not None and time.monotonic() >= self._looked_at + POLL_S:
            self._looked_at = time.monotonic()
            try:
                self._faults = Faults(**json.loads(self._path.read_text()))
            except FileNotFoundError:
                self._faults = NO_FAULTS
            except (ValueError, TypeError):  # TypeError: a field that is unknown, or no object
                pass
        return self._faults


class Caller(Protocol):
    """Who waits for the work; it is told of its end once."""

    def is_gone(self) -> bool: ...

    def done(self) -> None: ...

    def fail(self, message: str) -> None: ...


@dataclass(eq=False)
class Work:
    """The items of one request, by the seconds that each takes; lower priorities come first."""

    caller: Caller
    seconds: Sequence[float]
    priority: int = 0
    begun: int = 0
    ended: int = 0


@dataclass(order=True)
class _Turn:
    priority: int
    number: int
    work: Work = field(compare=False)


class TimedSlots:
    """Runs works in a thread of its own, which alone speaks with their callers."""

    def __init__(self, slots: int, faults: Callable[[], Faults] = lambda: NO_FAULTS) -> None:
        self._free = slots
        self._faults = faults
        self._numbers = itertools.count()
        self._waiting: list[_Turn] = []
        self._running: list[tuple[float, int, Work]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="timed-slots", daemon=True)
        self._thread.start()

    def start(self, work: Work) -> None:
        """Run it when its turn comes; its caller hears of it."""
        with self._changed:
            heapq.heappush(self._waiting, _Turn(work.priority, next(self._numbers), work))
            self._changed.notify()

    def load(self) -> Load:
        """Items in a slot, and requests of which some item still waits for one."""
        with self._changed:
            return Load(running=len(self._running), waiting=len(self._waiting))

    def close(self) -> None:
        """Begin nothing more, and leave what runs."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    return
                faults, now = self._faults(), time.monotonic()
                ended = [] if faults.hang else self._end(now)
                failed = [] if faults.hang else self._begin(now, faults)
                if not ended and not failed:
                    self._changed.wait(self._idle_s(now, faults))
            for work in ended:
                work.caller.done()
            for work, message in failed:
                work.caller.fail(message)

    def _end(self, now: float) -> list[Work]:
        """Free the slots of what is done; the works that are complete."""
        complete = []
        while self._running and self._running[0][0] <= now:
            _, _, work = heapq.heappop(self._running)
            self._free += 1
            work.ended += 1
            if work.ended == len(work.seconds):
                complete.append(work)
        return complete

    def _begin(self, now: float, faults: Faults) -> list[tuple[Work, str]]:
        """Fill the free slots; the works that end here instead, and why."""
        failed = []
        while self._waiting:
            if self._free == 0 and not faults.error:
                break
            work = self._waiting[0].work
            if work.begun == 0 and (faults.error or work.caller.is_gone()):
                heapq.heappop(self._waiting)
                failed.append((work, faults.error or "request was cancelled"))
                continue
            if self._free == 0:
                break  # The first was begun before the error came.
            ends_at = now + work.seconds[work.begun] * faults.slow_factor
            heapq.heappush(self._running, (ends_at, next(self._numbers), work))
            self._free -= 1
            work.begun += 1
            if work.begun == len(work.seconds):
                heapq.heappop(self._waiting)
        return failed

    def _idle_s(self, now: float, faults: Faults) -> float | None:
        """Until something is to be done without being told; None: not before."""
        if faults.hang:
            return POLL_S
        return max(0.0, self._running[0][0] - now) if self._running else None
