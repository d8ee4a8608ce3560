"""Who waits for a model that no worker can load is told so, and why."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from synapse.application.cold_start import ColdStart
from synapse.application.direct import DirectRequest
from synapse.domain.errors import Unavailable
from synapse.domain.inference import TOKEN_IDS, ModelInput
from synapse.domain.job import Job, JobState
from synapse.domain.loading import FailedLoad
from tests.factories import NOW, a_worker
from tests.unit.application.cold_world import ECHO, GOLD, ColdWorld, a_fleet_pool

BROKEN = FailedLoad("the weights are damaged", again_in_s=40.0)
TOO_LARGE = FailedLoad("it takes 30 of 25 MiB", is_final=True)


def a_request() -> DirectRequest:
    """A caller waits on the line."""
    return DirectRequest("r-1", "echo", ModelInput(prompt="hello"), 30.0)


async def ended(world: ColdWorld, job: Job) -> Job:
    """The job as its owner reads it."""
    return (await world.results.get(job.id, job.tenant)).job


async def test_while_loads_fail_wherever_it_could_run_no_wait_is_told() -> None:
    world = ColdWorld()
    world.failures.of = {"cpu": BROKEN}

    assert await world.cold_starts.of(ECHO, GOLD) == ColdStart("cpu", None, BROKEN)
    accepted = await world.accepted()

    assert (accepted.is_cold, accepted.estimated_wait_s) == (True, None)
    assert world.waker.woken == ["echo"], "it is tried again"


async def test_a_pool_that_may_load_it_yet_or_a_worker_that_has_it_is_waited_for() -> None:
    world = ColdWorld(a_fleet_pool("cpu"), a_fleet_pool("gpu", extensions=frozenset()))
    world.failures.of = {"cpu": BROKEN}
    assert (await world.cold_starts.of(ECHO, GOLD)) != ColdStart("cpu", None, BROKEN)
    assert await world.cold_starts.failed(ECHO, GOLD.requires) is None
    assert await world.cold_starts.failed(ECHO, TOKEN_IDS) == BROKEN, "the other one cannot"

    world.failures.of = {"cpu": TOO_LARGE, "gpu": BROKEN}
    assert await world.cold_starts.failed(ECHO, GOLD.requires) == BROKEN, "it may come right"

    await world.workers.beat(a_worker())
    assert await world.cold_starts.failed(ECHO, GOLD.requires) is None
    assert await world.cold_starts.of(ECHO, GOLD) is None


async def test_a_caller_on_the_line_is_told_the_cause_and_when_to_come_again() -> None:
    world = ColdWorld()
    world.failures.of = {"cpu": BROKEN}

    with pytest.raises(Unavailable, match="'echo' cannot be loaded: the weights are damaged") as no:
        await world.direct.run(a_request())

    assert (no.value.code, no.value.retry_after_s) == ("load_failed", 40)
    assert await world.slots.count("echo", "cpu") == 0


async def test_one_who_is_held_already_is_told_as_well() -> None:
    world = ColdWorld()
    waiting = asyncio.create_task(world.direct.run(a_request()))
    while not world.slept_s and not waiting.done():
        await asyncio.sleep(0)

    world.failures.of = {"cpu": BROKEN}

    with pytest.raises(Unavailable, match="the weights are damaged"):
        await waiting


async def test_once_another_try_is_due_a_caller_has_it_made_and_waits_for_it() -> None:
    world = ColdWorld()
    world.failures.of = {"cpu": replace(BROKEN, again_in_s=0.0)}
    waiting = asyncio.create_task(world.direct.run(a_request()))
    while not world.slept_s and not waiting.done():
        await asyncio.sleep(0)
    assert world.waker.woken == ["echo"]

    world.failures.of = {"cpu": replace(BROKEN, again_in_s=0.0, is_tried=True)}
    with pytest.raises(Unavailable):  # one is enough
        await world.direct.run(a_request())
    await world.workers.beat(a_worker(lease_until=NOW + 999))
    world.clock.advance(1.0)

    await waiting


async def test_a_job_whose_model_never_fits_fails_when_it_is_read() -> None:
    world = ColdWorld()
    job = (await world.accepted()).job
    world.failures.of = {"cpu": BROKEN}
    assert (await ended(world, job)).state is JobState.QUEUED

    world.failures.of = {"cpu": TOO_LARGE}
    found = await ended(world, job)

    assert (found.state, found.failure) == (JobState.FAILED, TOO_LARGE.failure)
    assert world.forgotten == [job.id]


async def test_a_job_whose_model_never_fits_fails_when_it_is_swept() -> None:
    world = ColdWorld()
    world.failures.of = {"cpu": TOO_LARGE}
    job = (await world.accepted()).job
    due_at = job.due_at
    assert due_at is not None
    world.clock.advance(due_at - world.clock())

    assert await world.sweeper.sweep() == {"fail": 1}

    found = await world.store.get(job.id)
    assert found is not None
    assert (found.state, found.failure) == (JobState.FAILED, TOO_LARGE.failure)
    assert world.forgotten == [job.id]


@pytest.mark.parametrize("by_reader", [True, False])
async def test_a_job_that_expires_meanwhile_says_what_it_waited_for(by_reader: bool) -> None:
    world = ColdWorld()
    world.failures.of = {"cpu": BROKEN}
    job = (await world.accepted()).job
    world.clock.advance(job.deadline_at - world.clock())

    if by_reader:
        await ended(world, job)
    else:
        await world.sweeper.sweep()

    found = await world.store.get(job.id)
    assert found is not None
    assert found.failure is not None
    assert (found.state, found.failure.code) == (JobState.EXPIRED, "deadline_exceeded")
    assert "its model is not loaded: the weights are damaged" in found.failure.message
    assert world.forgotten == [job.id]
