"""Sums of what was used: exact, by day, and told apart as a report asks for."""

from __future__ import annotations

import random

import pytest

from synapse.domain.job import Job, JobState, Lease, Served, Usage
from synapse.domain.receipt import Cost, receipt_of
from synapse.domain.usage import (
    Grouping,
    UsageKey,
    Used,
    day_of,
    grouped,
    one_request,
    summed,
    used_by,
)
from tests.factories import NOW, a_job, a_running_job, an_outcome

KEY = UsageKey("acme", "key-1", "echo", "2026-11-21")
SERVED = Served("gpu", "gpu", 3, "w-2", "", 40.0, 0.0003, 0.0001)


def an_ended_job() -> Job:
    job = a_running_job(created_at=NOW, tenant="acme", account="key-1")
    job = job.claimed(Lease("batch-1", NOW + 600), NOW)
    outcome = an_outcome(job.id, usage=Usage(5, 6, 1), served=SERVED)
    return job.settled(outcome, NOW + 2.5)


def test_a_day_is_that_of_greenwich() -> None:
    assert day_of(0.0) == "1970-01-01"
    assert day_of(86_399.9) == "1970-01-01"
    assert day_of(86_400.0) == "1970-01-02"


def test_a_jobs_usage_is_what_its_receipt_says() -> None:
    job = an_ended_job()
    receipt = receipt_of(job)
    assert receipt is not None

    key, used = used_by(job)

    assert key == UsageKey("acme", "key-1", "echo", day_of(NOW + 2.5))
    assert used.cost == receipt.cost == Cost(0.0003, 0.0001)
    assert (used.prompt_tokens, used.completion_tokens, used.cached_tokens) == (5, 6, 1)
    assert (receipt.queue_ms, receipt.inference_ms, receipt.cold_ms) == (0.0, 2500.0, 40.0)
    assert (receipt.pool, receipt.worker, receipt.batch_size) == ("gpu", "w-2", 3)


def test_a_job_that_has_not_ended_or_never_ran_has_no_receipt() -> None:
    assert receipt_of(a_job()) is None
    assert receipt_of(a_job().closed(JobState.CANCELLED, None, NOW)) is None
    with pytest.raises(ValueError, match="has not ended"):
        used_by(a_job())


def test_sums_are_the_same_in_whatever_order() -> None:
    costs = [random.Random(n).random() / 1e4 for n in range(500)]
    each = [(KEY, one_request(Usage(1, 1), Cost(cost, cost / 3))) for cost in costs]

    forward, backward = summed(each), summed(reversed(each))

    assert forward == backward
    assert forward[KEY].requests == 500


def test_usage_is_grouped_by_key_model_or_day() -> None:
    rows = {
        KEY: Used(1, 0, 10),
        KEY._replace(account="key-0"): Used(2, 1, 20),
        KEY._replace(model="smollm2"): Used(4, 0, 40),
        KEY._replace(day="2026-11-20"): Used(8, 0, 80),
    }

    assert grouped(rows, Grouping.KEY) == {"key-0": Used(2, 1, 20), "key-1": Used(13, 0, 130)}
    assert grouped(rows, Grouping.MODEL) == {"echo": Used(11, 1, 110), "smollm2": Used(4, 0, 40)}
    assert list(grouped(rows, Grouping.DAY)) == ["2026-11-20", "2026-11-21"]
