"""UsageStore and the JobStore beside it: sums by tenant, account, model and day, each once."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from synapse.domain.job import Failure, Job, JobState, Served, Usage
from synapse.domain.usage import PICODOLLARS, UsageKey, Used, day_of, summed, used_by
from tests.contract.openers import UsageCase
from tests.factories import NOW, a_job, a_lease, an_id, an_outcome

DAY = day_of(NOW)
ONE = UsageKey("acme", "key-1", "echo", DAY)
SERVED = Served("cpu", "cpu", 4, "w-1", cold_ms=12.5, active_usd=0.0000005, warm_usd=0.00000025)


async def test_nothing_used_is_no_row(usage_case: UsageCase) -> None:
    assert await usage_case.usage.used("acme", DAY, DAY) == {}


async def test_what_is_added_adds_up(usage_case: UsageCase) -> None:
    usage = usage_case.usage
    await usage.add(ONE, Used(1, 0, 10, 20, 5, 300, 30))
    await usage.add(ONE, Used(1, 1, 1, 0, 0, 7, 0))

    assert await usage.used("acme", DAY, DAY) == {ONE: Used(2, 1, 11, 20, 5, 307, 30)}


async def test_every_key_has_its_own_sum_and_a_tenant_sees_its_own_alone(
    usage_case: UsageCase,
) -> None:
    keys = [
        ONE,
        ONE._replace(account="key-2"),
        ONE._replace(account="a#b"),
        ONE._replace(account=""),
        ONE._replace(model="smollm2"),
        ONE._replace(tenant="acme#1"),
        ONE._replace(tenant="other"),
    ]
    for number, key in enumerate(keys):
        await usage_case.usage.add(key, Used(1 + number))

    found = await usage_case.usage.used("acme", DAY, DAY)

    assert found == {key: Used(1 + n) for n, key in enumerate(keys) if key.tenant == "acme"}


async def test_days_are_told_apart_and_both_ends_count(usage_case: UsageCase) -> None:
    for day in ("2026-11-19", "2026-11-20", "2026-11-21", "2026-11-22"):
        await usage_case.usage.add(ONE._replace(day=day), Used(1))

    found = await usage_case.usage.used("acme", "2026-11-20", "2026-11-21")

    assert sorted(key.day for key in found) == ["2026-11-20", "2026-11-21"]


async def test_sums_beyond_32_bits_stay_exact(usage_case: UsageCase) -> None:
    large = Used(1, 0, 2**40, 2**40, 0, 5000 * PICODOLLARS, 1)
    await usage_case.usage.add(ONE, large)
    await usage_case.usage.add(ONE, Used(0, 0, 1, 1, 0, 1, 1))

    assert (await usage_case.usage.used("acme", DAY, DAY))[ONE] == large + Used(0, 0, 1, 1, 0, 1, 1)


async def test_many_at_once_are_all_counted(usage_case: UsageCase) -> None:
    await asyncio.gather(*(usage_case.usage.add(ONE, Used(1, 0, 3)) for _ in range(40)))

    assert await usage_case.usage.used("acme", DAY, DAY) == {ONE: Used(40, 0, 120)}


async def test_a_job_that_completes_is_counted_with_its_tokens_and_its_cost(
    usage_case: UsageCase,
) -> None:
    job = await _running(usage_case)
    outcome = an_outcome(job.id, usage=Usage(7, 9, 2), served=SERVED)

    ended = await usage_case.jobs.settle(outcome, "batch-1", NOW + 1)

    assert ended is not None
    assert await usage_case.usage.used("acme", DAY, DAY) == {
        ONE: Used(1, 0, 7, 9, 2, 500_000, 250_000)
    }
    assert await usage_case.jobs.get(job.id) == ended


async def test_a_second_report_of_the_same_job_is_not_counted(usage_case: UsageCase) -> None:
    job = await _running(usage_case)
    outcome = an_outcome(job.id, usage=Usage(7, 9))

    await usage_case.jobs.settle(outcome, "batch-1", NOW + 1)
    await usage_case.jobs.settle(outcome, "batch-1", NOW + 2)
    await usage_case.jobs.close(job.id, JobState.CANCELLED, None, NOW + 3)

    assert await usage_case.usage.used("acme", DAY, DAY) == {ONE: Used(1, 0, 7, 9)}


@pytest.mark.parametrize(
    ("state", "errors"),
    [(JobState.CANCELLED, 0), (JobState.EXPIRED, 1), (JobState.FAILED, 1)],
)
async def test_a_job_that_ends_otherwise_is_counted_too(
    usage_case: UsageCase, state: JobState, errors: int
) -> None:
    job = a_job(tenant="acme", account="key-1")
    await usage_case.jobs.create(job)

    await usage_case.jobs.close(job.id, state, Failure("why", "because"), NOW + 1)

    assert await usage_case.usage.used("acme", DAY, DAY) == {ONE: Used(1, errors)}


async def test_open_jobs_are_not_counted_however_often_they_change(usage_case: UsageCase) -> None:
    job = await _running(usage_case)
    again = await usage_case.jobs.requeue(job, NOW + 1, lost=True)
    assert again is not None
    await usage_case.jobs.claim([job.id], a_lease("batch-2"), NOW + 2)
    await usage_case.jobs.due(NOW + 1000, 10)

    assert await usage_case.usage.used("acme", DAY, DAY) == {}


async def test_jobs_and_requests_add_up_exactly_whatever_order_they_end_in(
    usage_case: UsageCase,
) -> None:
    random_ = random.Random(7)
    jobs = [await _running(usage_case, account=f"key-{n % 3}") for n in range(12)]
    ended: list[Job] = []

    async def end(job: Job) -> None:
        cost = replace(SERVED, active_usd=random_.random() / 1000, warm_usd=random_.random())
        outcome = an_outcome(job.id, usage=Usage(random_.randrange(99), 1), served=cost)
        done = await usage_case.jobs.settle(outcome, "batch-1", NOW + 1)
        assert done is not None
        ended.append(done)

    requests = [(ONE, Used(1, 0, n, n, 0, n * 1_000_003, 1)) for n in range(30)]
    await asyncio.gather(
        *(end(job) for job in jobs), *(usage_case.usage.add(*each) for each in requests)
    )

    expected = summed([*requests, *(used_by(job) for job in ended)])
    assert await usage_case.usage.used("acme", DAY, DAY) == expected


async def _running(case: UsageCase, account: str = "key-1") -> Job:
    job = a_job(id=an_id("job-"), tenant="acme", account=account)
    await case.jobs.create(job)
    [claimed] = await case.jobs.claim([job.id], a_lease(), NOW)
    return claimed
