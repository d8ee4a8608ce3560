"""LocalJobQueue between tenants: nobody's backlog is anybody else's wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from synapse.adapters.local.queue import LocalJobQueue
from synapse.domain.batching import JobMessage
from synapse.domain.job import JobId, Priority, SlaTier
from tests.factories import a_message

BRONZE = SlaTier.BRONZE
BACKLOG = 10_000
_ids = (JobId(f"job-{number}") for number in count())


def jobs(tenant: str, number: int = 1, *, tokens: int = 100) -> list[JobMessage]:
    return [a_message(job_id=next(_ids), tenant=tenant, tokens=tokens) for _ in range(number)]


def tenants_of(messages: Sequence[JobMessage]) -> list[str]:
    return [message.tenant for message in messages]


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 64),
    served=st.integers(0, 50),
    crowd=st.integers(1, 5),
    tokens=st.integers(1, 8_000),
)
async def test_one_job_waits_no_longer_than_one_turn_behind_tenants_with_ten_thousand(
    batch: int, served: int, crowd: int, tokens: int
) -> None:
    queue = LocalJobQueue()
    for number in range(crowd):
        await queue.send(jobs(f"busy-{number}", BACKLOG // crowd, tokens=tokens))
    for _ in range(served):
        queue.take("echo", BRONZE, batch)
    await queue.send(jobs("patient", tokens=tokens))

    turns = 0
    while "patient" not in tenants_of(queue.take("echo", BRONZE, batch)):
        turns += 1

    # What a turn has room for goes round among all who wait.
    assert turns * batch <= crowd


async def test_tenants_alternate_who_send_the_like() -> None:
    queue = LocalJobQueue()
    await queue.send(jobs("a", 100))
    await queue.send(jobs("b", 3))

    assert tenants_of(queue.take("echo", BRONZE, 7)) == ["a", "b", "a", "b", "a", "b", "a"]


async def test_whose_jobs_are_large_has_fewer_of_them_served() -> None:
    queue = LocalJobQueue()
    await queue.send(jobs("large", 1000, tokens=4000))
    await queue.send(jobs("small", 1000, tokens=500))

    served = Counter(tenants_of(queue.take("echo", BRONZE, 900)))

    assert served == {"small": 800, "large": 100}


async def test_whose_jobs_have_many_samples_has_fewer_of_them_served() -> None:
    queue = LocalJobQueue()
    await queue.send([replace(job, items=8) for job in jobs("eights", 1000)])
    await queue.send(jobs("ones", 1000))

    taken = queue.take("echo", BRONZE, 1600)

    items = {name: sum(m.items for m in taken if m.tenant == name) for name in ("eights", "ones")}
    assert items == {"eights": 800, "ones": 800}


async def test_a_priority_has_its_share_of_slots_and_not_of_jobs() -> None:
    queue = LocalJobQueue()
    low = jobs("a", 1000)
    await queue.send([replace(job, items=8, priority=Priority.LOW) for job in low])
    await queue.send(jobs("a", 1000))

    taken = queue.take("echo", BRONZE, 900)

    # Of nine places eight are of normal priority.
    assert sum(message.items for message in taken if message.priority is Priority.LOW) <= 108


async def test_nobody_saves_up_turns_while_having_nothing_to_do() -> None:
    queue = LocalJobQueue()
    await queue.send(jobs("early") + jobs("always", 500))
    queue.take("echo", BRONZE, 300)
    await queue.send(jobs("early", 100))

    served = Counter(tenants_of(queue.take("echo", BRONZE, 20)))

    assert served == {"early": 10, "always": 10}


async def test_whoever_comes_again_and_again_with_one_job_does_not_push_in() -> None:
    queue = LocalJobQueue()
    await queue.send(jobs("steady", 100))
    served: Counter[str] = Counter()
    for _ in range(100):
        await queue.send(jobs("pushy"))
        served.update(tenants_of(queue.take("echo", BRONZE, 1)))

    assert served["steady"] == 50


async def test_what_is_put_back_is_its_tenants_first_again_and_costs_it_no_turn() -> None:
    queue = LocalJobQueue()
    mine, others = jobs("a", 10), jobs("b", 10)
    await queue.send(mine)
    taken = queue.take("echo", BRONZE, 5)
    await queue.send(others)

    queue.put_back(taken)

    served = queue.take("echo", BRONZE, 10)
    assert [each for each in served if each.tenant == "a"][:5] == mine[:5]
    assert Counter(tenants_of(served))["a"] >= 5


async def test_a_high_job_of_any_tenant_comes_before_the_normal_ones_of_all() -> None:
    queue = LocalJobQueue()
    await queue.send(jobs("a", 10) + jobs("b", 10))
    queue.take("echo", BRONZE, 5)
    await queue.send([a_message(tenant="a", priority=Priority.HIGH)])

    (first,) = queue.take("echo", BRONZE, 1)

    assert (first.tenant, first.priority) == ("a", Priority.HIGH)


class Queues(RuleBasedStateMachine):
    """The queue beside a plain set of what waits: nothing is lost, none comes twice, age holds."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = LocalJobQueue()
        self.waiting: dict[JobId, JobMessage] = {}
        self.taken: list[JobMessage] = []

    @rule(tenant=st.sampled_from("abc"), tokens=st.integers(0, 50), number=st.integers(1, 4))
    def send(self, tenant: str, tokens: int, number: int) -> None:
        messages = jobs(tenant, number, tokens=tokens)
        asyncio.run(self.queue.send(messages))
        self.waiting |= {message.job_id: message for message in messages}

    @rule(limit=st.integers(1, 5))
    def take(self, limit: int) -> None:
        self.taken = self.queue.take("echo", BRONZE, limit)
        assert len(self.taken) == min(limit, len(self.waiting))
        for message in self.taken:
            assert self.waiting.pop(message.job_id) == message
            older = [m for m in self.waiting.values() if m.tenant == message.tenant]
            assert all(_number(message) < _number(each) for each in older)

    @precondition(lambda self: self.taken)
    @rule()
    def put_back(self) -> None:
        self.queue.put_back(self.taken)
        self.waiting |= {message.job_id: message for message in self.taken}
        self.taken = []

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.waiting)))
        self.queue.discard(job_id)
        del self.waiting[job_id]

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        """As after a loss: it keeps its place."""
        job_id = data.draw(st.sampled_from(sorted(self.waiting)))
        self.waiting[job_id] = replace(self.waiting[job_id], losses=1)
        asyncio.run(self.queue.send([self.waiting[job_id]]))

    @invariant()
    def all_is_counted(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.waiting("echo", BRONZE) == len(self.waiting)


def _number(message: JobMessage) -> int:
    return int(message.job_id.rpartition("-")[2])


TestQueues = Queues.TestCase
TestQueues.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
