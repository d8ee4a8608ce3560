"""The lane of jobs on AWS: what finds no room is gathered, tried, and comes again if it must.

As `application.dispatch` does over SQS. What it decides by is its own; written anew is what awaits
between: the queues, and the function that they call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from bench.simulator import round_bill
from bench.simulator.events import at_once
from bench.simulator.executions import Executions
from bench.simulator.gathering_queue import GatheringQueue
from bench.simulator.jobs import JobLane
from bench.simulator.requests import Request
from synapse.application.dispatch import need_of_jobs
from synapse.application.gathering import Gathering
from synapse.application.waiting import WaitingPlaces
from synapse.domain.batching import JobMessage, plan_batches
from synapse.domain.job import JobId, Priority
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.routing import Decision

AT_ONCE = 20
"""Environments of the dispatcher that the queue of normal priority calls, as in template.yaml."""

WORKERS_VALID_S = 2.0
RATE_VALID_S = 5.0
PROFILES_VALID_S = 60.0
"""So long what an environment has read serves it, as in `adapters.aws`."""


@dataclass(slots=True)
class Environment:
    """One of the dispatcher's: what it has read."""

    _read_at: dict[str, float] = field(default_factory=dict)

    def has_to_read(self, what: str, now: float, valid_s: float) -> bool:
        """Whether it is read anew now."""
        if now - self._read_at.get(what, float("-inf")) < valid_s:
            return False
        self._read_at[what] = now
        return True


class Plan(NamedTuple):
    """A batch, and where it is to be tried."""

    spec: ModelSpec
    jobs: Sequence[JobMessage]
    decision: Decision


@dataclass(frozen=True, slots=True)
class Places(WaitingPlaces):
    """Notes what is read of them. How long items last is kept for seconds, and read already."""

    _asked: list[Pool] = field(default_factory=list)

    @property
    def reads(self) -> int:
        """Of the table."""
        return len(self._asked)

    async def taken(self, spec: ModelSpec, pool: Pool) -> int:
        """See there."""
        self._asked.append(pool)
        return await WaitingPlaces.taken(self, spec, pool)


@dataclass(slots=True)
class RoundLane(JobLane):
    """What SQS, the dispatcher, the batcher and `give_back` do.

    Messages are handed over as they come, those of one moment together, up to ten; one that comes
    while all environments are busy waits for the first that is not. So who waits alone is looked at
    alone, and paid for alone; who came in company, or has to queue, shares a call.
    """

    _there: deque[JobMessage] = field(default_factory=deque)
    """Messages that may be received."""
    _new: set[JobId] = field(default_factory=set)
    """Jobs that nobody has looked at yet."""
    _idle: list[Environment] = field(
        default_factory=lambda: [Environment() for _ in range(AT_ONCE)]
    )
    _executions: Executions = field(init=False)
    _gathered: GatheringQueue = field(init=False)
    _of_gathered: Environment = field(default_factory=Environment)

    def __post_init__(self) -> None:
        """Over a batcher of its own, and a queue that gathers."""
        self._executions = Executions(self, self._sent)
        self._gathered = GatheringQueue(self.events, self._dispatch_gathered)

    def send(self, request: Request) -> None:
        """Put its prompt, write a job down, which waits from then on, and send its message."""
        job_id = self.opened(request)
        self._new.add(job_id)
        deadline_at = self.events.now + request.timeout_s
        put_s, _ = self.bucket_s(request)

        def written() -> None:
            message = JobMessage(
                job_id, request.model, "1", Priority.NORMAL, 1, self.events.now, deadline_at
            )
            self.queue.send_again([message])
            self._sent([message])

        self.events.after(put_s + self.around.write.draw(self.chance), written)

    def look(self) -> None:
        """Nobody tells those that wait."""

    def _sent(self, messages: Sequence[JobMessage]) -> None:
        """They come after what SQS takes."""

        def arrived() -> None:
            self._there.extend(messages)
            self._invoke()

        self.events.after(self.around.deliver.draw(self.chance), arrived)

    def _invoke(self) -> None:
        """Hand over what is there; the environment that was used last is used first."""
        while self._there and self._idle:
            environment = self._idle.pop()
            number = min(len(self._there), round_bill.MESSAGES)
            self._dispatch([self._there.popleft() for _ in range(number)], environment)
            self.events.after(round_bill.DISPATCH_S, partial(self._done, environment))

    def _done(self, environment: Environment) -> None:
        self._idle.append(environment)
        self._invoke()

    def _dispatch(self, messages: Sequence[JobMessage], environment: Environment) -> None:
        """New ones, or such as were given back."""
        new = self._new & {message.job_id for message in messages}
        self._new -= new
        self.system.meter.count("looks", len(messages))
        self._look_at(messages, environment, again=len(messages) - len(new), were_gathered=False)

    def _dispatch_gathered(self, messages: Sequence[JobMessage]) -> None:
        """Those that were kept."""
        self._look_at(messages, self._of_gathered, again=len(messages), were_gathered=True)

    def _look_at(
        self,
        messages: Sequence[JobMessage],
        environment: Environment,
        *,
        again: int,
        were_gathered: bool,
    ) -> None:
        """Start those that have their turn; the others are gathered."""
        windows, registry = self.windows, self.routing.registry
        places = Places(windows, self.slots, registry, self.events.clock)
        turn = Gathering(self._gather, places).turn(self.events.now, were_gathered=were_gathered)
        reads = 0
        looked_at: set[str] = set()
        for plan in self._plans(messages):
            if plan.spec.name not in looked_at:
                looked_at.add(plan.spec.name)
                reads += self._reads(plan, environment)
            if not at_once(turn.keeps(plan.spec, plan.jobs, plan.decision)):
                self._executions.start(plan.spec, plan.decision.pools, plan.jobs)
        at_once(turn.close())
        meter = self.system.meter
        meter.count("invocations")
        meter.add(round_bill.invocation(len(messages), again, reads + places.reads))

    async def _gather(self, messages: Sequence[JobMessage], delay_s: float) -> None:
        """Send them on; they come after what SQS takes, and the delay."""
        self.system.meter.count("gathered again" if delay_s else "gathered", len(messages))
        self.system.meter.add(round_bill.sent(len(messages)))
        arrived = partial(self._gathered.add, list(messages))
        self.events.after(delay_s + self.around.deliver.draw(self.chance), arrived)

    def _plans(self, messages: Sequence[JobMessage]) -> Iterator[Plan]:
        """Each batch with its decision."""
        specs, known = self.system.specs, {message.job_id: message for message in messages}
        decide = self.routing.at_once()
        for batch in plan_batches(messages, lambda model: specs[model].batch, self.new_id):
            spec, jobs = specs[batch.model], [known[job_id] for job_id in batch.job_ids]
            need = need_of_jobs(spec, jobs, self.events.now)
            yield Plan(spec, jobs, at_once(decide(spec, need)))

    def _reads(self, plan: Plan, environment: Environment) -> int:
        """What decisions on a model read: of each pool what is in flight, which tells its room."""
        now = self.events.now
        kept = {
            "workers": WORKERS_VALID_S,
            plan.spec.name: RATE_VALID_S,
            "profiles": PROFILES_VALID_S,
        }
        anew = sum(environment.has_to_read(what, now, valid_s) for what, valid_s in kept.items())
        return anew + len(plan.decision.candidates)
