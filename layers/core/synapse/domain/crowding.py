"""How much company better tiers bear, learned from their own answers where no profile tells.

Answers are kept by how many items their worker had in flight as they began, themselves counted, in
classes that double: 1, 2, up to 4, up to 8, … A class is too crowded where more of its answers were
late than are anyway. Below it company is borne; above what was ever seen it is tried a class at a
time, as TCP finds out what a link bears (slow start, RFC 5681), and what was too much is forgotten
after a while and tried again: the work that is asked for changes.
"""

from __future__ import annotations

import math

from synapse.domain.latency import Latencies

REMEMBERED_S = 600.0
"""To find out again what is too much costs a few late answers: one a minute at most."""

MIN_ANSWERS = 8
"""Fewer do not tell that a class is too crowded."""

TOLERATED = 0.25
"""The share of a class that may be late beyond what is late alone: a pause is no crowd."""

HOPELESS = 0.5
"""A promise that is broken so often without company is not to be kept."""


class Crowding:
    """Of a model in a pool."""

    __slots__ = ("_took_ms",)

    def __init__(self) -> None:
        self._took_ms: dict[int, Latencies] = {}

    def note(self, now: float, in_flight: int, took_ms: float) -> None:
        """An answer to a better tier that began among so many on its worker; `now` only rises."""
        size = _class_of(in_flight)
        if size not in self._took_ms:
            self._took_ms[size] = Latencies(window_s=REMEMBERED_S)
        self._took_ms[size].note(now, took_ms)

    def most(self, now: float, promise_ms: float, own: int = 1) -> int | None:
        """The most in flight on a worker with which the promise is kept, or may be.

        None where nothing is known, or where it is not kept even by themselves: alone, or as far
        as they never are, among the `own` that better tiers have in flight on that worker.
        """
        late: dict[int, float] = {}
        told: list[int] = []
        for size, took_ms in sorted(self._took_ms.items()):
            share = took_ms.share(now, promise_ms, math.inf)
            if share is None:
                continue
            late[size] = share
            if took_ms.count(now) >= MIN_ANSWERS:
                told.append(size)
        alone = late[told[0]] if told and told[0] <= _class_of(own) else 0.0
        if not late or alone >= HOPELESS:
            return None
        for size in told:
            if late[size] > alone + TOLERATED:
                return _most_of(size - 1)
        return _most_of(max(late) + 1)


def _class_of(in_flight: int) -> int:
    """Class 0 is one, 1 two, 2 up to 4, 3 up to 8, and so on."""
    return max(0, in_flight - 1).bit_length()


def _most_of(size: int) -> int:
    """The most in flight in a class."""
    return 1 << size
