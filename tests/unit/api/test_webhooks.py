from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from synapse.api.resolver import Api
from synapse.domain.access import Principal
from synapse.domain.delivery import Answer, delivery_of
from synapse.domain.job import JobState
from synapse.domain.webhook import event_of_job
from tests.factories import NOW, a_job
from tests.unit.api.calls import Answered, api_of, call
from tests.unit.application.world import World

URL = "https://hooks.example/x"
GOOD = {"url": URL, "events": ["job.completed", "batch.failed"]}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def api(world: World) -> Api:
    async def by_header(event: Mapping[str, Any]) -> Principal:
        return Principal(event["headers"].get("x-tenant", "mine"))

    return api_of(world, by_header)


async def ask(api: Api, method: str, path: str, body: object = None, **options: Any) -> Answered:
    tenant = options.pop("tenant", "mine")
    return await call(api, method, f"/api/webhooks{path}", body, {"x-tenant": tenant}, **options)


async def test_the_secret_is_in_the_first_answer_and_in_no_other(api: Api) -> None:
    made = await ask(api, "POST", "", GOOD)
    listed = await ask(api, "GET", "")

    assert made.status == 201
    assert made.json["secret"].startswith("whsec_")
    assert made.headers["cache-control"] == "no-store"
    assert {**listed.json["data"][0], "secret": made.json["secret"]} == made.json
    assert "whsec_" not in listed.text
    assert (made.json["url"], made.json["events"]) == (URL, ["batch.failed", "job.completed"])


async def test_a_secret_is_replaced_by_another(api: Api) -> None:
    made = (await ask(api, "POST", "", GOOD)).json

    rotated = await ask(api, "POST", f"/{made['id']}/rotate")
    callbacks = await ask(api, "POST", "/callbacks/rotate")

    assert rotated.status == callbacks.status == 201
    assert rotated.json == {**made, "secret": rotated.json["secret"]}
    assert rotated.json["secret"] != made["secret"]
    assert (callbacks.json["id"], callbacks.json["url"]) == ("callbacks", None)


async def test_a_deleted_webhook_is_gone(api: Api) -> None:
    made = (await ask(api, "POST", "", GOOD)).json

    deleted = await ask(api, "DELETE", f"/{made['id']}")
    again = await ask(api, "DELETE", f"/{made['id']}")

    assert deleted.json == {"id": made["id"], "object": "webhook", "deleted": True}
    assert (again.status, again.error["code"]) == (404, "webhook_not_found")
    assert (await ask(api, "GET", "")).json["data"] == []


async def test_anothers_webhook_is_answered_like_one_that_never_was(api: Api) -> None:
    made = (await ask(api, "POST", "", GOOD)).json

    for method, tail in (("DELETE", ""), ("POST", "/rotate")):
        foreign = await ask(api, method, f"/{made['id']}{tail}", tenant="other")
        unknown = await ask(api, method, f"/we_none{tail}", tenant="other")
        assert foreign.status == unknown.status == 404
        assert foreign.text.replace(made["id"], "we_none") == unknown.text
    assert (await ask(api, "GET", "", tenant="other")).json["data"] == []
    assert len((await ask(api, "GET", "")).json["data"]) == 1


@pytest.mark.parametrize("webhook_id", ["a" * 5000, "ä", "we_%00", "we_ "])
async def test_what_is_no_id_names_no_webhook(api: Api, webhook_id: str) -> None:
    deleted = await ask(api, "DELETE", f"/{webhook_id}")
    rotated = await ask(api, "POST", f"/{webhook_id}/rotate")

    assert deleted.status == rotated.status == 404
    assert len(deleted.text) < 500


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"url": "http://hooks.example/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:169.254.169.254]/"}, "url"),
        ({"url": "https://me:pw@hooks.example/"}, "url"),
        ({"url": 1}, "url"),
        ({"events": []}, "events"),
        ({"events": ["job.started"]}, "events.0"),
        ({"secret": "whsec_x"}, "secret"),
    ],
)
async def test_a_bad_webhook_is_refused_by_the_name_of_its_field(
    api: Api, change: dict[str, object], param: str
) -> None:
    refused = await ask(api, "POST", "", {**GOOD, **change})

    assert (refused.status, refused.error["param"]) == (400, param)


async def test_it_can_be_seen_what_became_of_the_telling(world: World, api: Api) -> None:
    job = a_job(id="j1", tenant="mine").closed(JobState.FAILED, None, NOW)
    delivery = delivery_of(event_of_job(job), "we_1", URL, "hooks.example", NOW)
    tried = delivery.after(Answer(503), NOW + 1, 0.5)
    await world.deliveries.add([tried])

    seen = await ask(api, "GET", "/deliveries", query={"job": "j1"})
    foreign = await ask(api, "GET", "/deliveries", query={"job": "j1"}, tenant="other")

    (body,) = seen.json["data"]
    assert (body["status"], body["attempts"], body["last_status_code"]) == ("pending", 1, 503)
    assert (body["type"], body["webhook"], body["url"]) == ("job.failed", "we_1", URL)
    assert body["next_attempt_at"] == pytest.approx(NOW + 6)
    assert (foreign.status, foreign.json["data"]) == (200, [])


@pytest.mark.parametrize("query", [None, {"job": "a", "batch": "b"}, {"job": ""}])
async def test_deliveries_are_asked_for_by_one_job_or_one_batch(
    api: Api, query: dict[str, str] | None
) -> None:
    refused = await ask(api, "GET", "/deliveries", query=query)

    assert (refused.status, refused.error["param"]) == (400, "job")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/async-infer", {"model": "echo", "prompt": "Hi", "callback_url": URL}),
        ("/api/inference", {"data": {"text": "Hi"}, "model": "echo", "callback_url": URL}),
    ],
)
async def test_a_job_has_a_callback_url_of_its_own(
    world: World, api: Api, path: str, body: dict[str, Any]
) -> None:
    accepted = await call(api, "POST", path, body)
    bad = await call(api, "POST", path, {**body, "callback_url": "https://10.0.0.1/"})

    (job,) = world.store.jobs.values()
    assert accepted.status == 202
    assert (job.callback_url, job.announce) == (URL, True)
    assert (bad.status, bad.error["param"]) == (400, "callback_url")


async def test_the_end_of_a_job_is_marked_where_its_tenant_listens(world: World, api: Api) -> None:
    body = {"model": "echo", "prompt": "Hi"}
    await call(api, "POST", "/async-infer", body, {"x-tenant": "mine"})
    await ask(api, "POST", "", GOOD)
    await call(api, "POST", "/async-infer", body, {"x-tenant": "mine"})
    await call(api, "POST", "/async-infer", body, {"x-tenant": "other"})

    assert [job.announce for job in world.store.jobs.values()] == [False, True, False]


async def test_the_same_key_with_another_callback_is_another_request(api: Api) -> None:
    body = {"model": "echo", "prompt": "Hi", "callback_url": URL}
    key = {"Idempotency-Key": "k"}

    first = await call(api, "POST", "/async-infer", body, key)
    again = await call(api, "POST", "/async-infer", body, key)
    other = await call(api, "POST", "/async-infer", {**body, "callback_url": f"{URL}/2"}, key)

    assert (first.status, again.json["jobId"]) == (202, first.json["jobId"])
    assert (other.status, other.error["code"]) == (422, "idempotency_conflict")


def test_a_job_keeps_its_callback_to_itself() -> None:
    job = replace(a_job(), callback_url="https://hooks.example/?token=hush")

    assert "hush" not in repr(job)
