"""Jobs in the state that a test starts from, brought there through the port."""

from __future__ import annotations

from synapse.domain.job import Job, JobState
from synapse.ports import JobStore
from tests.factories import NOW, a_job, a_lease, an_outcome

OWNER = "batch-1"


async def created(store: JobStore, count: int = 1, **changes: float) -> list[Job]:
    jobs = [a_job(**changes) for _ in range(count)]
    await store.create_many(jobs)
    return jobs


async def job_in(store: JobStore, state: JobState) -> Job:
    """A new job, brought to a state through the port."""
    job = a_job()
    await store.create(job)
    if state in (JobState.RUNNING, JobState.COMPLETED, JobState.FAILED):
        [job] = await store.claim([job.id], a_lease(OWNER), NOW + 1)
    if state in (JobState.COMPLETED, JobState.FAILED):
        settled = await store.settle(an_outcome(job.id, state), OWNER, NOW + 2)
        assert settled is not None
        job = settled
    if state in (JobState.CANCELLED, JobState.EXPIRED):
        closed = await store.close(job.id, state, None, NOW + 2)
        assert closed is not None
        job = closed
    assert job.state is state
    return job
