"""Random lives of many jobs: any store must answer as the in-memory one does, call by call."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from synapse.domain.errors import IdempotencyConflict
from synapse.domain.job import Failure, Job, JobId, JobState, Lease, Payload, Usage
from synapse.ports import Idempotency, JobStore
from tests.contract.openers import Opener
from tests.factories import a_job, an_outcome
from tests.fakes import FakeClock, MemoryJobStore

OWNERS = st.sampled_from(["batch-1", "batch-2", "batch-3"])
FINAL = st.sampled_from([state for state in JobState if state.is_final])
KEYS = st.none() | st.builds(
    Idempotency, st.sampled_from(["key-1", "key-2"]), st.sampled_from(["body-1", "body-2"])
)
SECONDS = st.sampled_from([0.0, 0.001, 1.0, 30.0, 121.0, 600.0, 4000.0])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


class JobStoreMachine(RuleBasedStateMachine):
    """Does the same to the store under test and to the model, and compares the answers."""

    opener: Opener[JobStore]

    @initialize()
    def open(self) -> None:
        self.clock = FakeClock()
        self.model = MemoryJobStore(self.clock)
        self.seen: list[Job] = []
        self.ids = [JobId("no-such-job")]
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.folder = tempfile.TemporaryDirectory()
        opening = type(self).opener(self.clock, Path(self.folder.name))
        self.subject = self.runner.run(self._enter(opening))

    async def _enter(self, opening: Any) -> JobStore:
        opened: JobStore = await self.stack.enter_async_context(opening)
        return opened

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.stack.aclose())
            self.runner.close()
            self.folder.cleanup()

    def compare(self, call: Callable[[JobStore], Awaitable[Any]]) -> Any:
        """The answer of both stores, errors included; they must agree."""
        expected = self.runner.run(_answer(call, self.model))
        got = self.runner.run(_answer(call, self.subject))
        assert got == expected
        return got

    def new_id(self) -> JobId:
        """Ids are counted, not random, so that a life can be lived again."""
        self.ids.append(JobId(f"job-{len(self.ids)}"))
        return self.ids[-1]

    def pick(self, data: st.DataObject, max_size: int = 1) -> list[JobId]:
        return data.draw(st.lists(st.sampled_from(self.ids), min_size=1, max_size=max_size))

    @rule(key=KEYS, timeout_s=st.sampled_from([10.0, 300.0, 7200.0]), text=TEXTS)
    def create(self, key: Idempotency | None, timeout_s: float, text: str) -> None:
        now = self.clock()
        job = a_job(
            id=self.new_id(),
            created_at=now,
            deadline_at=now + timeout_s,
            payload=Payload(inline=text),
            metadata={text: text},
        )
        self.compare(lambda store: store.create(job, key))

    @rule(owner=OWNERS, state=FINAL, steps=st.integers(0, 2))
    def record(self, owner: str, state: JobState, steps: int) -> None:
        """A job that is claimed, and ends, before its creator hears that it is recorded."""
        job = a_job(id=self.new_id(), created_at=self.clock(), deadline_at=self.clock() + 300)
        lease = Lease(owner, self.clock() + 30)

        async def life(store: JobStore) -> list[Any]:
            seen: list[Any] = []
            async with store.recording(job):
                if steps > 0:
                    seen += await store.claim([job.id], lease, self.clock())
                if steps > 1:
                    outcome = an_outcome(job.id, state, failure=Failure("code", "text"))
                    seen.append(await store.settle(outcome, owner, self.clock()))
            return seen

        self.compare(life)

    @rule(count=st.integers(0, 4))
    def create_many(self, count: int) -> None:
        jobs = [a_job(id=self.new_id(), created_at=self.clock()) for _ in range(count)]
        self.compare(lambda store: store.create_many(jobs))

    @rule(data=st.data(), owner=OWNERS, lease_s=SECONDS)
    def claim(self, data: st.DataObject, owner: str, lease_s: float) -> None:
        ids, now = self.pick(data, 4), self.clock()
        lease = Lease(owner, now + lease_s)
        self.seen.extend(self.compare(lambda store: store.claim(ids, lease, now)))

    @rule(data=st.data(), owner=OWNERS, state=FINAL, text=TEXTS)
    def settle(self, data: st.DataObject, owner: str, state: JobState, text: str) -> None:
        outcome = an_outcome(
            self.pick(data)[0],
            state,
            usage=Usage(1, 2) if state is JobState.COMPLETED else None,
            failure=Failure("code", text) if state is JobState.FAILED else None,
        )
        self.compare(lambda store: store.settle(outcome, owner, self.clock()))

    @rule(data=st.data(), state=FINAL)
    def close(self, data: st.DataObject, state: JobState) -> None:
        job_id, failure = self.pick(data)[0], Failure("closed", "from outside")
        self.compare(lambda store: store.close(job_id, state, failure, self.clock()))

    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        job_id = self.pick(data)[0]
        job = self.compare(lambda store: store.get(job_id))
        self.seen.extend([job] if job else [])

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), lost=st.booleans(), unanswered=st.booleans())
    def requeue(self, data: st.DataObject, lost: bool, unanswered: bool) -> None:
        job, how = data.draw(st.sampled_from(self.seen)), {"lost": lost, "unanswered": unanswered}
        self.compare(lambda store: store.requeue(job, self.clock(), **how))

    @rule()
    def due(self) -> None:
        async def in_order(store: JobStore) -> list[Job]:
            due = await store.due(self.clock(), 1000)
            moments = [job.due_at or 0.0 for job in due]
            assert moments == sorted(moments)
            return sorted(due, key=lambda job: job.id)

        self.seen.extend(self.compare(in_order))

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def the_records_are_the_same(self) -> None:
        if hasattr(self, "subject"):
            self.compare(self._latest)

    async def _latest(self, store: JobStore) -> list[Job | None]:
        return [await store.get(job_id) for job_id in self.ids[-4:]]


async def _answer(call: Callable[[JobStore], Awaitable[Any]], store: JobStore) -> Any:
    try:
        return await call(store)
    except IdempotencyConflict:
        return IdempotencyConflict


def machine_for(opener: Opener[JobStore]) -> type[JobStoreMachine]:
    """The machine over the store that `opener` opens, anew for every life."""
    return type("Machine", (JobStoreMachine,), {"opener": staticmethod(opener)})
