"""What is still to be done for a draft, shared by the threads that do it."""

import os
import threading
from collections import deque
from dataclasses import dataclass

from synapse_worker.cache.draft import Draft
from synapse_worker.cache.manifest import Part


@dataclass(frozen=True, slots=True)
class Task:
    """A part to be fetched, or one left behind by an earlier process and to be checked."""

    part: Part
    is_here: bool


class Worklist:
    """Tasks until every part is intact. Its methods may be called from several threads."""

    def __init__(self, draft: Draft) -> None:
        """Parts left behind count as there until they turn out to be wrong."""
        self._missing, self._left_behind = deque(draft.missing()), deque(draft.left_behind())
        self.open_parts = len(self._missing) + len(self._left_behind)
        self.missing_bytes = sum(part.length for part in self._missing)
        self._checkers = 0
        self._max_checkers = max(1, len(os.sched_getaffinity(0)) // 2)
        self._is_closed = False
        self._change = threading.Condition()

    def next(self) -> Task | None:
        """What to do next; None when all is done, or the list was closed.

        Waits while there is nothing to do, for others may yet find that a part must come again.
        """
        with self._change:
            while self.open_parts and not self._is_closed:
                # Both at a time: checking keeps some cores busy, and fetching the link.
                if self._left_behind and (self._checkers < self._max_checkers or not self._missing):
                    self._checkers += 1
                    return Task(self._left_behind.popleft(), is_here=True)
                if self._missing:
                    return Task(self._missing.popleft(), is_here=False)
                self._change.wait()
            return None

    def succeed(self, task: Task) -> None:
        """Its part is there and intact."""
        with self._change:
            self.open_parts -= 1
            self._checkers -= task.is_here
            self.missing_bytes -= 0 if task.is_here else task.part.length
            self._change.notify_all()

    def fetch_again(self, task: Task) -> None:
        """A part that was left behind is wrong."""
        with self._change:
            self._checkers -= 1
            self._missing.append(task.part)
            self.missing_bytes += task.part.length
            self._change.notify_all()

    def close(self) -> None:
        """Nothing more is to be done."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()
