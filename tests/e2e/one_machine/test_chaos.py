"""A short soak under faults at random; `make chaos` runs longer ones, with seeds of their own."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from synapse.domain.api_key import ID_LENGTH, PREFIX, SECRET_LENGTH, key_id_of
from synapse.domain.job import Failure, Job, JobState, Served
from synapse.domain.usage import UsageKey, Used, summed, used_by
from tests.chaos.books import Books
from tests.chaos.oracle import Accepted, Asked, Kind, Oracle, Violation
from tests.chaos.soak import soak
from tests.factories import NOW, a_job

SEED = 11
SECONDS = 12.0


async def test_nothing_accepted_is_lost_or_ends_twice_under_faults(tmp_path: Path) -> None:
    said: list[str] = []
    soaked = await soak(tmp_path, SEED, SECONDS, say=said.append)

    assert soaked.faults.total() >= 4, said
    assert soaked.accepted == soaked.ends.total() > 50


METERED = PREFIX + "m" * (ID_LENGTH + SECRET_LENGTH)
ACCOUNT = str(key_id_of(METERED))
SERVED = Served("a", "cpu", 1, active_usd=2e-6, warm_usd=1e-6)


def an_ended_job(state: JobState = JobState.COMPLETED, code: str = "", **changes: Any) -> Job:
    failure = Failure(code, "as the test wants it") if code else None
    job = a_job(account=ACCOUNT, state=state, served=SERVED, failure=failure, **changes)
    return replace(job, started_at=NOW, finished_at=NOW + 1.0)


def books_of(*jobs: Job, **changes: Any) -> Books:
    """Books in which all adds up, but for the `changes`."""
    used = summed(used_by(job) for job in jobs if job.state.is_final)
    right = Books(jobs, keys=2, used=used, reserved=(), spent=2000 * len(jobs))
    return replace(right, **changes)


def faults_of(books: Books) -> str:
    """What an oracle says of them that has seen two jobs complete."""
    jobs = [Accepted(str(number), Kind.PLAIN, f"{number} one", 600.0, "") for number in (1, 2)]
    asked = Asked("", free="", metered=METERED, read=lambda: books)
    oracle = Oracle(asked, random.Random(1), jobs, Counter({"COMPLETED": 2}))
    return oracle._fault_of(books)


def test_the_oracle_is_content_with_books_that_add_up() -> None:
    refused = an_ended_job(JobState.FAILED, "not_queued")
    assert faults_of(books_of(an_ended_job(), an_ended_job())) == ""
    assert faults_of(books_of(an_ended_job(), an_ended_job(), refused)) == ""


ONE_REQUEST_MORE = {UsageKey("default", ACCOUNT, "echo", "2023-11-14"): Used(3, 0)}


@pytest.mark.parametrize(
    "wrong",
    [
        books_of(an_ended_job()),
        books_of(an_ended_job(), an_ended_job(), an_ended_job()),
        books_of(an_ended_job(), a_job()),
        books_of(an_ended_job(), an_ended_job(JobState.FAILED, "worker_lost")),
        books_of(an_ended_job(), an_ended_job(), keys=3),
        books_of(an_ended_job(), an_ended_job(), used={}),
        books_of(an_ended_job(), an_ended_job(), used=ONE_REQUEST_MORE),
        books_of(an_ended_job(), an_ended_job(), reserved=("1",)),
        books_of(an_ended_job(), an_ended_job(), spent=3999),
        books_of(an_ended_job(), an_ended_job(), spent=6001),
    ],
)
def test_the_oracle_sees_books_that_do_not_add_up(wrong: Books) -> None:
    assert faults_of(wrong)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.PLAIN, {"status": "EXPIRED"}),
        (Kind.PLAIN, {"status": "COMPLETED", "result": {"text": "another's"}}),
        (Kind.PLAIN, {"status": "FAILED", "error": {"code": "engine_error"}}),
        (Kind.BRIEF, {"status": "CANCELLED"}),
    ],
)
def test_the_oracle_sees_wrong_ends(kind: Kind, body: dict[str, object]) -> None:
    job = Accepted("1", kind, "1 one", 600.0, "")
    asked = Asked("", free="", metered="", read=books_of)
    with pytest.raises(Violation):
        Oracle(asked, random.Random(1))._judge(job, body)


def test_the_oracle_sees_jobs_that_are_given_up_too_early() -> None:
    """A product that fails whatever a fault has touched must not pass."""
    done = an_ended_job()
    given_up = [an_ended_job(JobState.FAILED, "worker_lost", losses=lost) for lost in (1, 2)]

    early, late = (books_of(done, each).fault(ACCOUNT) for each in given_up)

    assert "before 3 workers were lost" in early
    assert late == ""


@pytest.mark.parametrize(
    ("answer", "status", "is_broken"),
    [
        (200, "COMPLETED", True),
        (200, "CANCELLED", False),
        (409, "COMPLETED", False),
    ],
)
async def test_the_oracle_sees_a_cancellation_that_was_confirmed_and_is_forgotten(
    answer: int, status: str, *, is_broken: bool
) -> None:
    job = Accepted("1", Kind.CANCELLED, "1 one", 600.0, "")
    asked = Asked("http://server", free="", metered="", read=books_of)
    oracle = Oracle(asked, random.Random(1))
    transport = httpx.MockTransport(lambda request: httpx.Response(answer, json={}))

    async with httpx.AsyncClient(transport=transport) as client:
        await oracle._cancel(client, job)

    body = {"status": status, "result": {"text": job.prompt}}
    if is_broken:
        with pytest.raises(Violation, match="was said to be cancelled"):
            oracle._judge(job, body)
    else:
        oracle._judge(job, body)
