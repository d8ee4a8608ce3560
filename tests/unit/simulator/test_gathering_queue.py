"""The queue that gathers, in virtual time."""

from __future__ import annotations

from bench.simulator.events import Events
from bench.simulator.gathering_queue import GATHER_S, MOST, GatheringQueue
from synapse.domain.batching import JobMessage
from synapse.domain.job import JobId, Priority


class Gathered:
    """What was handed over, and when."""

    def __init__(self) -> None:
        self.events = Events()
        self.queue = GatheringQueue(self.events, lambda jobs: self.handed.append(self._seen(jobs)))
        self.handed: list[tuple[float, list[str]]] = []

    def _seen(self, jobs: object) -> tuple[float, list[str]]:
        assert isinstance(jobs, list)
        return self.events.now, [job.job_id for job in jobs]

    def add(self, *numbers: int) -> None:
        self.queue.add(
            [
                JobMessage(JobId(str(number)), "rerank", "1", Priority.NORMAL, 1, 0.0, 600.0)
                for number in numbers
            ]
        )


def test_what_comes_while_the_window_is_open_is_handed_over_when_it_closes() -> None:
    gathered = Gathered()

    gathered.add(1)
    gathered.events.run(GATHER_S - 0.1)
    gathered.add(2, 3)
    gathered.events.run(GATHER_S)
    gathered.events.run(10.0)
    gathered.add(4)
    gathered.events.run(20.0)

    assert gathered.handed == [(GATHER_S, ["1", "2", "3"]), (10.0 + GATHER_S, ["4"])]


def test_when_as_many_are_there_as_one_call_takes_they_are_handed_over_at_once() -> None:
    gathered = Gathered()

    gathered.add(*range(MOST - 1))
    gathered.events.run(1.0)
    gathered.add(*range(MOST, MOST + 3))
    gathered.events.run(1.0 + GATHER_S)

    assert [(at, len(jobs)) for at, jobs in gathered.handed] == [(1.0, MOST), (1.0 + GATHER_S, 2)]
