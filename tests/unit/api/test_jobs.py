"""The routes of jobs, in both shapes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from synapse.api.resolver import Api
from synapse.domain.access import Principal
from synapse.domain.errors import InvalidInput, Unavailable
from synapse.domain.inference import Completion
from synapse.domain.job import JobState, Priority, Served, SlaTier, Usage
from tests.factories import NOW, a_lease, an_outcome
from tests.fakes import ScriptedEngine
from tests.faults import failing_before
from tests.unit.api.calls import api_of, call
from tests.unit.application.world import CHAT, World


async def test_a_job_goes_in_with_202_and_comes_out_with_its_result() -> None:
    world = World()
    api = api_of(world)

    accepted = await call(api, "POST", "/async-infer", {"model": "echo", "prompt": "hello there"})
    job_id = accepted.json["jobId"]
    waiting = await call(api, "GET", f"/results/{job_id}")
    await world.work()
    done = await call(api, "GET", f"/results/{job_id}")

    assert accepted.status == 202
    assert accepted.json == {
        "jobId": job_id,
        "status": "QUEUED",
        "queue_position": 1,
        "estimated_wait_time": None,
        "cold_start": False,
    }
    assert accepted.headers["location"] == f"/results/{job_id}"
    assert (waiting.status, waiting.json["status"]) == (200, "QUEUED")
    assert done.json["status"] == "COMPLETED"
    assert done.json["result"] == {"text": "hello there", "finish_reason": "stop"}
    assert done.json["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
        "cached_tokens": None,
    }
    assert done.json["timings"]["total_ms"] is not None
    assert done.json["error"] is None


async def test_tokens_from_the_prefix_cache_are_told_with_the_usage() -> None:
    answer = Completion("hi", "stop", Usage(5, 1, cached_tokens=4))
    world = World(engine=ScriptedEngine(lambda _: answer))
    api = api_of(world)
    body = {"model": "echo", "prompt": "hello there"}
    job_id = (await call(api, "POST", "/async-infer", body)).json["jobId"]

    await world.work()
    done = await call(api, "GET", f"/results/{job_id}")

    assert done.json["result"] == {"text": "hi", "finish_reason": "stop"}
    assert done.json["usage"]["cached_tokens"] == 4


async def test_a_result_that_is_too_large_to_answer_with_is_read_elsewhere() -> None:
    long = "word " * 60_000
    world = World(result_link=_link)
    api = api_of(world)
    body = {"model": "echo", "prompt": long}
    job_id = (await call(api, "POST", "/async-infer", body)).json["jobId"]
    small_id = (await call(api, "POST", "/async-infer", {**body, "prompt": "hi"})).json["jobId"]
    await world.work()

    job = (await call(api, "GET", f"/results/{job_id}")).json
    task = (await call(api, "GET", f"/api/inference/{job_id}")).json
    small = (await call(api, "GET", f"/results/{small_id}")).json

    stored = (await world.job(job_id)).result
    assert stored is not None
    url = f"https://blobs/{stored.blob_key}"
    assert (job["status"], job["result"], job["result_url"]) == ("COMPLETED", None, url)
    assert (task["status"], task["result"], task["result_url"]) == ("completed", None, url)
    assert (small["result"]["text"], small["result_url"]) == ("hi", None)


async def _link(key: str, text: str) -> str:
    assert "word word" in text
    return f"https://blobs/{key}"


async def test_a_job_that_outlives_its_result_says_so() -> None:
    long = "word " * 60_000
    world = World()
    api = api_of(world)
    asked = await call(api, "POST", "/async-infer", {"model": "echo", "prompt": long})
    job_id = asked.json["jobId"]
    await world.work()
    assert (await call(api, "GET", f"/results/{job_id}")).json["result"]["text"] == long

    world.blobs.blobs.clear()
    gone = await call(api, "GET", f"/results/{job_id}")

    assert gone.status == 410
    assert gone.json["error"] == {
        "message": f"the result of job {job_id} is gone; submit the job again",
        "type": "invalid_request_error",
        "param": None,
        "code": "result_lost",
    }


async def test_everything_the_request_says_reaches_the_job() -> None:
    world = World()
    body = {
        "model": CHAT,
        "messages": [{"role": "user", "content": "hi"}],
        "parameters": {"max_tokens": 7, "temperature": 0, "stop": ["\n"]},
        "chat_template_kwargs": {"enable_thinking": False},
        "reasoning_effort": "none",
        "priority": "high",
        "sla": "gold",
        "timeout": 9,
        "metadata": {"order": "4711"},
    }

    job_id = (await call(api_of(world), "POST", "/async-infer", body)).json["jobId"]
    [job] = world.store.jobs.values()
    await world.work()

    assert (job.id, job.model, job.priority, job.sla) == (
        job_id,
        CHAT,
        Priority.HIGH,
        SlaTier.GOLD,
    )
    assert job.deadline_at == world.clock() + 9
    assert job.metadata == {"order": "4711"}
    [(_, _, [request])] = world.engine.calls
    assert request.input.parameters == {"max_tokens": 7, "temperature": 0.0, "stop": ["\n"]}
    assert request.input.variables == {"enable_thinking": False}
    assert request.input.effort == "none"


async def test_a_failed_job_tells_its_cause_in_the_error_shape() -> None:
    world = World(engine=ScriptedEngine(lambda _: InvalidInput("the prompt is too long")))
    api = api_of(world)
    job_id = (await call(api, "POST", "/async-infer", {"model": "echo", "prompt": "x"})).json[
        "jobId"
    ]
    await world.work()

    done = await call(api, "GET", f"/results/{job_id}")

    assert done.status == 200
    assert done.json["status"] == "FAILED"
    assert done.json["error"] == {
        "message": "the prompt is too long",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_input",
    }


async def test_cancelling() -> None:
    world = World()
    api = api_of(world)
    job_id = (await call(api, "POST", "/async-infer", {"model": "echo", "prompt": "x"})).json[
        "jobId"
    ]
    other = (await call(api, "POST", "/async-infer", {"model": "echo", "prompt": "y"})).json[
        "jobId"
    ]

    cancelled = await call(api, "DELETE", f"/results/{job_id}")
    await world.work()
    too_late = await call(api, "DELETE", f"/results/{other}")

    assert (cancelled.status, cancelled.json["status"]) == (200, "CANCELLED")
    assert too_late.status == 409
    assert too_late.error["code"] == "job_already_ended"


async def test_a_repeated_idempotency_key_attaches_to_the_first_job() -> None:
    api = api_of(World())
    headers = {"Idempotency-Key": "order-1"}
    body = {"model": "echo", "prompt": "x"}

    first = await call(api, "POST", "/async-infer", body, headers)
    again = await call(api, "POST", "/async-infer", body, headers)
    other = await call(api, "POST", "/async-infer", {**body, "prompt": "y"}, headers)

    assert again.json["jobId"] == first.json["jobId"]
    assert other.status == 422
    assert other.error["code"] == "idempotency_conflict"


async def test_an_idempotency_key_is_an_accounts_own() -> None:
    world, body = World(), {"model": "echo", "prompt": "x"}
    headers = {"Idempotency-Key": "order-1"}

    def api_for(account: str) -> Api:
        async def identify(event: Mapping[str, Any]) -> Principal:
            return Principal("acme", account)

        return api_of(world, identify)

    one, other, third = [
        await call(api_for(account), "POST", "/async-infer", {**body, "prompt": prompt}, headers)
        for account, prompt in (("key1", "x"), ("key2", "x"), ("key3", "y"))
    ]
    again = await call(api_for("key1"), "POST", "/async-infer", body, headers)

    assert third.status == 202
    assert len({each.json["jobId"] for each in (one, other, third)}) == 3
    assert again.json["jobId"] == one.json["jobId"]


async def test_tasks_of_a_batch_that_is_sent_again_are_the_first_ones() -> None:
    api, headers = api_of(World()), {"Idempotency-Key": "order-1"}
    tasks: list[Any] = [{"model": "echo", "data": {"text": text}} for text in ("a", "a", "b")]

    async def submitted(tasks: list[Any]) -> list[Any]:
        path, body = "/api/inference/batch", {"requests": tasks}
        results: list[Any] = (await call(api, "POST", path, body, headers)).json["results"]
        return results

    first, again = await submitted(tasks), await submitted(tasks)
    *same, other = await submitted([*tasks[:2], {"model": "echo", "data": {"text": "c"}}])

    ids = [each["task_id"] for each in first]
    assert len(set(ids)) == 3
    assert [each["task_id"] for each in again] == ids
    assert [each["task_id"] for each in same] == ids[:2]
    assert other["error"]["code"] == "idempotency_conflict"


async def test_a_full_queue_is_503_with_retry_after() -> None:
    world = World()
    full = Unavailable("the queue is full", retry_after_s=7, code="queue_full")
    world.queue = failing_before(world.queue, send=[full])

    refused = await call(api_of(world), "POST", "/async-infer", {"model": "echo", "prompt": "x"})

    assert refused.status == 503
    assert refused.headers["retry-after"] == "7"
    assert refused.error["type"] == "server_error"


async def test_a_body_that_curl_labels_as_a_form_is_read_as_json() -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}

    accepted = await call(
        api_of(World()), "POST", "/async-infer", {"model": "echo", "prompt": "x"}, headers
    )

    assert accepted.status == 202


async def test_the_second_shape_is_the_same_job() -> None:
    world = World()
    api = api_of(world)

    accepted = await call(
        api, "POST", "/api/inference", {"data": {"text": "hi"}, "priority": "low"}
    )
    task_id = accepted.json["task_id"]
    await world.work()
    done = await call(api, "GET", f"/api/inference/{task_id}")
    as_job = await call(api, "GET", f"/results/{task_id}")

    assert accepted.status == 202
    assert accepted.json["status"] == "queued"
    assert done.json["status"] == "completed"
    assert done.json["result"] == "hi"
    assert done.json["processing_time"] >= 0
    assert as_job.json["model"] == CHAT


async def test_a_bad_item_of_a_batch_does_not_reject_the_others() -> None:
    world = World()
    requests = [
        {"data": {"text": "good"}},
        {"data": {}},
        {"data": {"text": "x"}, "model": "gpt-9"},
        "nonsense",
        {"data": {"text": "also good"}, "priority": "high"},
    ]

    answer = await call(api_of(world), "POST", "/api/inference/batch", {"requests": requests})

    assert answer.status == 202
    assert (answer.json["accepted"], answer.json["rejected"]) == (2, 3)
    results = answer.json["results"]
    assert [result["index"] for result in results] == [0, 1, 2, 3, 4]
    assert [("task_id" in result) for result in results] == [True, False, False, False, True]
    assert results[1]["error"]["param"] == "data.text"
    assert results[2]["error"]["code"] == "model_not_found"
    assert len(world.queue.messages) == 2


async def test_requests_side_by_side_do_not_mix() -> None:
    world = World()
    api = api_of(world)

    answers = await asyncio.gather(
        *(
            call(api, "POST", "/async-infer", {"model": "echo", "prompt": f"p{n}"})
            for n in range(50)
        )
    )
    await world.work()
    results = await asyncio.gather(
        *(call(api, "GET", f"/results/{answer.json['jobId']}") for answer in answers)
    )

    assert [result.json["result"]["text"] for result in results] == [f"p{n}" for n in range(50)]


async def test_waiting_holds_the_answer_until_the_job_ends() -> None:
    world = World()
    api = api_of(world)
    job_id = (await call(api, "POST", "/async-infer", {"model": "echo", "prompt": "x"})).json[
        "jobId"
    ]

    waiting = asyncio.create_task(call(api, "GET", f"/results/{job_id}", query={"wait": "30"}))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await world.work()

    assert (await waiting).json["status"] == JobState.COMPLETED


async def test_a_result_says_which_worker_ran_it_and_why_no_pool_met_its_tier() -> None:
    world = World()
    api = api_of(world)
    plain, served = await world.submit(), await world.submit()
    for job, where in (
        (plain, Served("local", "cpu", 1)),
        (served, Served("gpu", "gpu", 4, "w-3", "no pool meets tier gold: gpu: …")),
    ):
        await world.store.claim([job.id], a_lease(), NOW)
        await world.store.settle(an_outcome(job.id, served=where), "batch-1", NOW)

    answers = [(await call(api, "GET", f"/results/{job.id}")).json for job in (plain, served)]

    assert [(each["pool"], each["worker"], each["routing"]) for each in answers] == [
        ("local", None, None),
        ("gpu", "w-3", "no pool meets tier gold: gpu: …"),
    ]
