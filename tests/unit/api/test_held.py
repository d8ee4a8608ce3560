"""`POST /infer`: a job and its end in one request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from synapse.domain.batching import JobMessage
from synapse.domain.errors import InvalidInput, Unavailable
from synapse.domain.job import JobState
from tests.fakes import ScriptedEngine
from tests.faults import failing_before
from tests.unit.api.calls import Answered, api_of, call
from tests.unit.application.world import World

BODY = {"model": "echo", "prompt": "hello"}
LONG = {"wait": "3600"}


def _asking(world: World, **headers: str) -> asyncio.Task[Answered]:
    """A submission that is held for an hour unless its job ends."""
    api = api_of(world, max_wait_s=3600)
    return asyncio.create_task(call(api, "POST", "/infer", BODY, headers, LONG))


async def _until_recorded(world: World) -> None:
    """Until the job is on record; by then its submission is held, or soon is."""
    while not world.store.jobs:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_job_that_ends_in_time_is_answered_as_it_ended() -> None:
    world = World()
    asking = _asking(world)
    await _until_recorded(world)
    assert not asking.done()

    await world.work()
    answered = await asking

    place = answered.headers["location"]
    assert place == f"/results/{answered.json['jobId']}"
    assert (answered.status, answered.json["status"]) == (200, "COMPLETED")
    assert answered.json["result"]["text"] == "hello"
    assert answered.json == (await call(api_of(world), "GET", place)).json


async def test_one_that_does_not_is_accepted_and_goes_on() -> None:
    world = World()

    answered = await call(api_of(world), "POST", "/infer", BODY, query={"wait": "0.01"})

    submitted = await call(api_of(World()), "POST", "/async-infer", BODY)
    assert (answered.status, answered.json) == (202, submitted.json)
    await world.work()
    assert world.states() == {answered.json["jobId"]: JobState.COMPLETED}


async def test_the_front_door_holds_nobody_for_longer_than_it_can() -> None:
    api = api_of(World(), max_wait_s=0.01)

    assert (await call(api, "POST", "/infer", BODY, query=LONG)).status == 202
    assert (await call(api, "POST", "/infer", BODY)).status == 202


async def test_a_job_that_fails_in_time_is_answered_with_its_failure() -> None:
    world = World(engine=ScriptedEngine(lambda _: InvalidInput("the prompt is too long")))
    asking = _asking(world)
    await _until_recorded(world)
    await world.work()
    answered = await asking

    assert (answered.status, answered.json["status"]) == (200, "FAILED")
    assert answered.json["error"]["message"] == "the prompt is too long"


@pytest.mark.parametrize("first_path", ["/infer", "/async-infer"])
async def test_the_same_key_again_gets_the_end_of_the_job_there_is(first_path: str) -> None:
    world = World()
    key = {"Idempotency-Key": "once"}
    first = await call(api_of(world, max_wait_s=0.01), "POST", first_path, BODY, key)
    await world.work()

    again = await _asking(world, **key)

    assert (again.status, again.json["jobId"]) == (200, first.json["jobId"])
    assert again.json["result"]["text"] == "hello"
    assert len(world.states()) == 1


async def test_an_accepted_job_that_cannot_be_read_is_accepted_all_the_same() -> None:
    world = World()
    world.store = failing_before(world.store, get=[Unavailable("the table is throttled")])

    answered = await call(api_of(world), "POST", "/infer", BODY, query=LONG)

    assert answered.status == 202
    assert (await world.job(answered.json["jobId"])).state is JobState.QUEUED


async def test_a_server_that_stops_tells_who_waits_that_the_job_is_accepted() -> None:
    world = World()
    asking = _asking(world)
    await _until_recorded(world)

    asking.cancel()
    answered = await asking

    assert (answered.status, answered.json["status"]) == (202, "QUEUED")
    assert list(world.states()) == [answered.json["jobId"]]


async def test_who_hangs_up_while_the_job_is_recorded_leaves_it_recorded() -> None:
    world = World()
    recording, go_on = asyncio.Event(), asyncio.Event()
    send = world.queue.send

    async def slow(messages: Sequence[JobMessage]) -> None:
        recording.set()
        await go_on.wait()
        await send(messages)

    world.queue.send = slow
    asking = _asking(world)
    await recording.wait()

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go_on.set()
    await _until_recorded(world)
    await world.work()

    assert list(world.states().values()) == [JobState.COMPLETED]


@pytest.mark.parametrize("wait", ["-1", "3601", "soon"])
async def test_a_wait_that_is_none_is_refused_and_records_nothing(wait: str) -> None:
    world = World()

    answered = await call(api_of(world), "POST", "/infer", BODY, query={"wait": wait})

    assert (answered.status, answered.error["param"]) == (400, "wait")
    assert world.states() == {}
