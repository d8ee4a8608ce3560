"""A worker killed, hung, slow or answering errors: traffic moves, and comes back by itself."""

from __future__ import annotations

import asyncio

import pytest

from synapse.domain.errors import EngineLost
from synapse.domain.job import JobState
from tests.integration.fleet.sick_workers import Ward, under_load
from tests.patience import PATIENCE_S


async def falls_ill(ward: Ward, fault: str) -> None:
    if fault == "killed":
        await ward.tritons["w-1"].kill()
    else:
        ward.tritons["w-1"].fault = fault


async def gets_well(ward: Ward, fault: str) -> None:
    ward.tritons["w-1"].fault = ""
    if fault == "killed":
        await ward.tritons["w-1"].start()


CALLERS = 6


@pytest.mark.parametrize("fault", ["killed", "hung", "slow", "errors"])
async def test_callers_do_not_notice_and_the_worker_comes_back(ward: Ward, fault: str) -> None:
    async with under_load(ward, CALLERS):
        await ward.until(lambda: min(ward.answered_by[w] for w in ward.tritons) > 10)

        await falls_ill(ward, fault)
        await ward.until(lambda: ward.is_open("w-1"))
        await ward.until_only("w-2")

        await gets_well(ward, fault)
        before = ward.answered_by["w-1"]
        await ward.until(lambda: not ward.is_open("w-1"))
        await ward.until(lambda: ward.answered_by["w-1"] > before + 50)

    if fault == "killed":
        # An answer that had begun ends with its worker: at most one for each caller.
        assert len(ward.failures) <= CALLERS
        assert {type(error) for error in ward.failures} <= {EngineLost}
    else:
        assert ward.failures == []


@pytest.mark.parametrize("fault", ["killed", "hung", "errors"])
async def test_jobs_finish_though_a_worker_is_lost_under_them(ward: Ward, fault: str) -> None:
    for triton in ward.tritons.values():
        triton.fault = "slow"
    asked_before = ward.tritons["w-1"].asked
    running = asyncio.create_task(ward.run_jobs(24))
    await ward.until(lambda: ward.tritons["w-1"].asked > asked_before)

    for triton in ward.tritons.values():
        triton.fault = ""
    await falls_ill(ward, fault)
    async with asyncio.timeout(PATIENCE_S):
        jobs = await running

    assert {job.state for job in jobs} == {JobState.COMPLETED}
    assert {job.served.worker for job in jobs if job.served} <= {"w-1", "w-2"}
    assert max(job.losses for job in jobs) <= 1


async def test_jobs_lost_with_a_worker_that_was_slow_first_do_not_go_there_again(
    ward: Ward,
) -> None:
    ward.tritons["w-1"].fault = "failing"
    ward.tritons["w-2"].fault = "slow"

    async with asyncio.timeout(PATIENCE_S):
        jobs = await ward.run_jobs(24)

    assert {job.state for job in jobs} == {JobState.COMPLETED}
    assert max(job.losses for job in jobs) == 1


async def test_with_both_hung_callers_are_held_until_one_is_back(ward: Ward) -> None:
    for triton in ward.tritons.values():
        triton.fault = "hung"
    asked = [asyncio.create_task(ward.ask(f"{number} held")) for number in range(4)]
    await asyncio.sleep(0.5)
    assert not any(task.done() for task in asked)

    ward.tritons["w-2"].fault = ""
    async with asyncio.timeout(PATIENCE_S):
        outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert all(outcome == "w-2" for outcome in outcomes), outcomes


async def test_conversations_stay_with_their_worker(ward: Ward) -> None:
    for number in range(8):
        workers = {await ward.ask(f"{number} stays") for _ in range(6)}
        assert len(workers) == 1
