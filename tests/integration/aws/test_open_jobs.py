"""Which of the open jobs wait: every kind is seen, whatever else waits, and a look has bounds."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.adapters.aws.open_jobs import Kind, OpenJobs
from synapse.domain.errors import Unavailable
from synapse.domain.extension import NO_EXTENSIONS
from synapse.domain.job import JobState, Lease, Priority, SlaTier
from tests.aws import Aws, Call, intercepted
from tests.factories import NOW, a_job
from tests.fakes import FakeClock

BACKLOG = Kind("echo", SlaTier.BRONZE, NO_EXTENSIONS)
OTHER = Kind("other", SlaTier.BRONZE, NO_EXTENSIONS)


@pytest.fixture
def jobs(cloud: Aws, clock: FakeClock) -> DynamoJobStore:
    return DynamoJobStore(cloud.dynamodb, cloud.jobs_table, clock=clock)


@pytest.fixture
def open_jobs(cloud: Aws) -> OpenJobs:
    return OpenJobs(cloud.dynamodb, cloud.jobs_table)


async def backlog(jobs: DynamoJobStore, number: int = 200, **details: Any) -> None:
    """Jobs of one model, some of which were sent again, and so are due later."""
    for place in range(number):
        sent_at = NOW - 100 + place / 10
        job = a_job(created_at=NOW - 100, sent_at=sent_at, sends=1 + place % 2, **details)
        await jobs.create(job)


@pytest.mark.parametrize("sends", [1, 2], ids=["due first", "due later than any lease"])
async def test_few_jobs_of_a_model_are_seen_among_many_of_another(
    open_jobs: OpenJobs, jobs: DynamoJobStore, sends: int
) -> None:
    await backlog(jobs)
    for _ in range(3):
        lines = a_job(model="other", priority=Priority.LOW, sent_at=NOW, sends=sends)
        await jobs.create(lines)

    assert await open_jobs.waiting(NOW) == {BACKLOG: 200, OTHER: 3}


async def test_of_those_that_may_run_a_few_of_each_kind_say_how_many_wait(
    open_jobs: OpenJobs, jobs: DynamoJobStore
) -> None:
    running = [a_job(created_at=NOW + place / 100) for place in range(60)]
    for job in [*running, a_job(model="other")]:
        await jobs.create(job)
    await jobs.claim([job.id for job in running[::2]], Lease("batch", NOW + 100), NOW)

    waiting = await open_jobs.waiting(NOW)

    assert waiting[OTHER] == 1
    assert waiting[BACKLOG] == pytest.approx(30, abs=15)


async def test_what_runs_or_has_ended_does_not_wait(cloud: Aws, open_jobs: OpenJobs) -> None:
    counted_later = DynamoJobStore(
        cloud.dynamodb, cloud.jobs_table, clock=lambda: NOW, usage_table="there is none"
    )
    running, ended = a_job(), a_job()
    for job in (running, ended):
        await counted_later.create(job)
    await counted_later.claim([running.id], Lease("batch", NOW + 60), NOW)
    await counted_later.close(ended.id, JobState.CANCELLED, None, NOW)

    assert await open_jobs.waiting(NOW) == {}


@pytest.mark.parametrize("sends", [1, 2], ids=["due first", "due later than any lease"])
async def test_a_job_counts_with_all_its_items(
    open_jobs: OpenJobs, jobs: DynamoJobStore, sends: int
) -> None:
    running = a_job(items=7)
    for job in (running, a_job(items=4, sent_at=NOW, sends=sends), a_job(sent_at=NOW, sends=sends)):
        await jobs.create(job)
    await jobs.claim([running.id], Lease("batch", NOW + 100), NOW)

    assert await open_jobs.waiting(NOW) == {BACKLOG: 5}
    assert await open_jobs.waiting(NOW + 1) == {BACKLOG: 5}


async def test_a_record_is_read_once_as_long_as_its_job_is_open(
    cloud: Aws, open_jobs: OpenJobs, jobs: DynamoJobStore
) -> None:
    await backlog(jobs)
    with intercepted(cloud.dynamodb, read := _Read()):
        await open_jobs.waiting(NOW)
        at_first, read.records = read.records, 0
        await open_jobs.waiting(NOW + 10)

    # Again only those of the sample, which tells what waits of what may run.
    assert at_first >= 200
    assert read.records <= 16
    assert read.most_at_once <= 100


async def test_a_backlog_of_many_looks_hides_nobody_and_a_look_has_its_bounds(
    cloud: Aws, jobs: DynamoJobStore
) -> None:
    await backlog(jobs)
    last = a_job(model="other", sent_at=NOW, sends=8)
    await jobs.create(last)
    few = OpenJobs(cloud.dynamodb, cloud.jobs_table, entries=5)

    seen = []
    with intercepted(cloud.dynamodb, read := _Read()):
        for look in range(9):
            seen.append(await few.waiting(NOW + 10 * look))
            assert read.entries <= 8 * 5
            read.entries = 0

    # 25 of a shard or so, five at a look; from then on each pass finds it again.
    assert seen[0][OTHER] == 0
    assert seen[7][OTHER] == seen[8][OTHER] == 1
    assert seen[7][BACKLOG] == pytest.approx(200, abs=20)

    await jobs.close(last.id, JobState.CANCELLED, None, NOW)
    for look in range(16):
        gone = await few.waiting(NOW + 100 + 10 * look)
    assert gone[OTHER] == 0


async def test_what_is_left_unread_of_a_sample_says_nothing_of_what_waits(
    cloud: Aws, open_jobs: OpenJobs, jobs: DynamoJobStore
) -> None:
    for _ in range(40):
        await jobs.create(a_job())
    assert await open_jobs.waiting(NOW) == {BACKLOG: 40}

    with intercepted(cloud.dynamodb, _Throttled(reads=4)):
        assert await open_jobs.waiting(NOW) == {BACKLOG: 40}


@pytest.mark.parametrize("is_known", [True, False])
async def test_where_none_of_a_kind_is_read_nothing_is_said(
    cloud: Aws, open_jobs: OpenJobs, jobs: DynamoJobStore, is_known: bool
) -> None:
    """None would be taken for no work, and its workers sent home."""
    await jobs.create(a_job())
    if is_known:
        await open_jobs.waiting(NOW)

    with intercepted(cloud.dynamodb, _Throttled(reads=0)), pytest.raises(Unavailable):
        await open_jobs.waiting(NOW)

    assert await open_jobs.waiting(NOW) == {BACKLOG: 1}


class _Throttled:
    """A table that has the first `reads` of the records asked for, and leaves the others."""

    def __init__(self, reads: int) -> None:
        self._reads = reads

    def __call__(self, call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        if operation != "BatchGetItem":
            return call(operation, arguments)
        [(table, asked)] = arguments["RequestItems"].items()
        now, later = asked["Keys"][: self._reads], asked["Keys"][self._reads :]
        answer: Any = {"Responses": {}}
        if now:
            answer = call(operation, {"RequestItems": {table: {**asked, "Keys": now}}})
        return {**answer, "UnprocessedKeys": {table: {**asked, "Keys": later}} if later else {}}


class _Read:
    """What was read: entries of the index, and records of jobs."""

    def __init__(self) -> None:
        self.entries = self.records = self.most_at_once = 0

    def __call__(self, call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        answer = call(operation, arguments)
        if operation == "Query":
            self.entries += len(answer["Items"])
        if operation == "BatchGetItem":
            number = sum(len(each["Keys"]) for each in arguments["RequestItems"].values())
            self.records += number
            self.most_at_once = max(self.most_at_once, number)
        return answer
