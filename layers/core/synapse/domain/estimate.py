"""How long a new job will wait, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synapse.domain.job import Priority
from synapse.domain.model import Task


@dataclass(frozen=True, slots=True)
class ServiceRate:
    """What was measured of a model lately: items finished and the slot time they took.

    One that `is_guess` was measured of pings alone, which are smaller than any work.
    """

    items: int
    busy_s: float
    is_guess: bool = False

    @property
    def seconds_per_item(self) -> float | None:
        """Mean time one item holds a slot; None before anything was measured."""
        return self.busy_s / self.items if self.items else None

    def of_items(self, task: Task) -> ServiceRate:
        """What it tells of a model's items: a guess tells nothing of generations.

        A ping writes one token, which is no measure of how long a generation holds its slot.
        """
        if self.is_guess and task is Task.GENERATE:
            return ServiceRate(0, 0.0, is_guess=True)
        return self


def queue_position(depth: Mapping[Priority, int], priority: Priority) -> int:
    """The place of a job that joins now, 1 being next: behind its own priority and all above."""
    return 1 + sum(waiting for other, waiting in depth.items() if other.rank <= priority.rank)


def estimated_wait_s(position: int, rate: ServiceRate, slots: int) -> float | None:
    """Seconds until who is at `position` starts; None while nothing has been measured.

    Places are those of items, of which a job ahead has one or more.

    Little's law: `slots` items in progress, each holding its slot for s seconds, finish at
    slots / s a second, which is how fast the queue ahead drains.
    """
    per_item = rate.seconds_per_item
    if per_item is None:
        return None
    return (position - 1) * per_item / slots
