"""The lane of jobs on AWS: whatever is dispatched is tried, and what found no room comes again.

As `application.dispatch` does over SQS. What it decides by is its own; written anew is what awaits
between: the queue, and the function that it calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.simulator import round_bill
from bench.simulator.events import at_once
from bench.simulator.executions import Executions
from bench.simulator.jobs import JobLane
from bench.simulator.requests import Request
from synapse.application.dispatch import need_of_jobs
from synapse.domain.batching import JobMessage, plan_batches
from synapse.domain.job import JobId, Priority
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

    def __post_init__(self) -> None:
        """Over a batcher of its own."""
        self._executions = Executions(self, self._sent)

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
        """Start them all, whether there is room or not."""
        specs, meter = self.system.specs, self.system.meter
        known = {message.job_id: message for message in messages}
        again, reads = len(known.keys() - self._new), 0
        self._new -= known.keys()
        for batch in plan_batches(messages, lambda model: specs[model].batch, self.new_id):
            spec, jobs = specs[batch.model], [known[job_id] for job_id in batch.job_ids]
            decision = at_once(self.routing.decide(spec, need_of_jobs(spec, jobs, self.events.now)))
            reads += self._reads(decision, spec.name, environment)
            self._executions.start(spec, decision.pools, jobs)
        meter.count("invocations")
        meter.count("looks", len(messages))
        meter.add(round_bill.invocation(len(messages), again, reads))

    def _reads(self, decision: Decision, model: str, environment: Environment) -> int:
        """What a decision reads: of each pool what is in flight, and where one is up its room."""
        now = self.events.now
        kept = {"workers": WORKERS_VALID_S, model: RATE_VALID_S, "profiles": PROFILES_VALID_S}
        anew = sum(environment.has_to_read(what, now, valid_s) for what, valid_s in kept.items())
        return anew + len(decision.candidates) + len(decision.takers())
