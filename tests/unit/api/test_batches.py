"""/v1/batches: OpenAI's object, every field of it, and its refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from synapse.api.openai.batches import batch_object
from synapse.api.resolver import Api
from synapse.domain.file_batch import (
    Counts,
    Cursor,
    FileBatchId,
    FileBatchStatus,
    LineFault,
    Step,
)
from synapse.domain.job import Usage
from tests.factories import NOW, a_file_batch
from tests.unit.api.calls import Answered, api_of, call
from tests.unit.api.forms import upload
from tests.unit.application.world import World

NONE_YET = {
    "model",
    "errors",
    "output_file_id",
    "error_file_id",
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
}


@pytest.fixture
def api() -> Api:
    return api_of(World())


async def uploaded(api: Api) -> str:
    file_id: str = (await upload(api)).json["id"]
    return file_id


async def create(api: Api, **changes: Any) -> Answered:
    body = {
        "input_file_id": changes.pop("file", None) or await uploaded(api),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    return await call(api, "POST", "/v1/batches", {**body, **changes})


async def test_a_new_batch_has_every_field_of_openais_object(api: Api) -> None:
    answer = await create(api, metadata={"team": "a"})

    body = answer.json
    assert answer.status == 200
    assert {key for key, value in body.items() if value is None} == NONE_YET
    assert body["id"].startswith("batch_")
    assert (body["object"], body["status"]) == ("batch", "validating")
    assert body["expires_at"] - body["created_at"] == 86_400
    assert body["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert body["usage"] == {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }
    assert body["metadata"] == {"team": "a"}


@pytest.mark.parametrize("header", ["Idempotency-Key", "x-stainless-retry-count"])
async def test_a_batch_that_is_asked_for_again_is_the_first_one(api: Api, header: str) -> None:
    body = {
        "input_file_id": await uploaded(api),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    first, again = [
        await call(api, "POST", "/v1/batches", body, {header: value})
        for value in (["k", "k"] if header == "Idempotency-Key" else ["0", "1"])
    ]

    assert (first.status, again.text) == (200, first.text)
    assert len((await call(api, "GET", "/v1/batches")).json["data"]) == 1


async def test_a_key_is_good_for_one_batch(api: Api) -> None:
    body = {
        "input_file_id": await uploaded(api),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    key = {"Idempotency-Key": "k"}
    await call(api, "POST", "/v1/batches", body, key)

    other = await call(api, "POST", "/v1/batches", {**body, "completion_window": "1h"}, key)

    assert (other.status, other.error["code"]) == (422, "idempotency_conflict")


async def test_a_batch_is_read_back_as_it_was_answered(api: Api) -> None:
    created = (await create(api)).json

    assert (await call(api, "GET", f"/v1/batches/{created['id']}")).json == created


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"file": "file-unknown"}, 404, "file_not_found", "input_file_id"),
        ({"endpoint": "/v1/moderations"}, 400, "invalid_value", "endpoint"),
        ({"completion_window": "7d"}, 400, "invalid_value", "completion_window"),
        ({"completion_window": None}, 400, "invalid_type", "completion_window"),
        ({"metadata": {str(n): "" for n in range(17)}}, 400, "invalid_value", "metadata"),
        ({"metadata": {"a": "x" * 513}}, 400, "invalid_value", "metadata.a"),
        ({"nope": 1}, 400, "unknown_parameter", "nope"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 5}},
            400,
            "invalid_value",
            "output_expires_after.seconds",
        ),
    ],
)
async def test_what_is_not_served_is_refused_by_name(
    api: Api, changes: dict[str, Any], status: int, code: str, param: str
) -> None:
    answer = await create(api, **changes)

    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)


async def test_every_field_that_must_be_there_is_asked_for(api: Api) -> None:
    answer = await call(api, "POST", "/v1/batches", {})

    assert answer.error["code"] == "missing_required_parameter"


async def test_pages_go_newest_first_and_on_behind_the_last(api: Api) -> None:
    ids = [(await create(api)).json["id"] for _ in range(3)]

    first = (await call(api, "GET", "/v1/batches", query={"limit": "2"})).json
    rest = (await call(api, "GET", "/v1/batches", query={"after": first["last_id"]})).json

    assert [each["id"] for each in first["data"]] == ids[:0:-1]
    assert (first["object"], first["first_id"], first["has_more"]) == ("list", ids[2], True)
    assert [each["id"] for each in rest["data"]] == ids[:1]
    assert (rest["last_id"], rest["has_more"]) == (ids[0], False)


@pytest.mark.parametrize("limit", ["0", "101", "x"])
async def test_a_page_has_one_to_a_hundred(api: Api, limit: str) -> None:
    answer = await call(api, "GET", "/v1/batches", query={"limit": limit})

    assert (answer.status, answer.error["param"]) == (400, "limit")


async def test_no_batches_are_an_empty_page(api: Api) -> None:
    assert (await call(api, "GET", "/v1/batches")).json == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


async def test_cancelling_twice_is_cancelling_once(api: Api) -> None:
    batch_id = (await create(api)).json["id"]

    once = await call(api, "POST", f"/v1/batches/{batch_id}/cancel")
    twice = await call(api, "POST", f"/v1/batches/{batch_id}/cancel")

    assert (once.status, once.json["status"]) == (200, "cancelling")
    assert once.json["cancelling_at"]
    assert twice.json == once.json


@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("POST", "/cancel")])
async def test_an_unknown_batch_is_not_found(api: Api, method: str, tail: str) -> None:
    answer = await call(api, method, f"/v1/batches/batch_x{tail}")

    assert (answer.status, answer.error["code"]) == (404, "batch_not_found")


def test_a_batch_under_way_tells_counts_usage_and_times() -> None:
    batch = a_file_batch(id=FileBatchId("batch_1")).validated(5, 100, "m", NOW + 1)
    step = Step(Cursor(3, 50), completed=2, failed=1, usage=Usage(10, 20, 4))
    batch = batch.stepped(step, NOW + 2).moved(FileBatchStatus.CANCELLING, NOW + 3)

    body = json.loads(batch_object(batch).model_dump_json())

    assert batch.counts == Counts(5, 2, 1)
    assert body["request_counts"] == {"total": 5, "completed": 2, "failed": 1}
    assert body["usage"]["total_tokens"] == 30
    assert body["usage"]["input_tokens_details"]["cached_tokens"] == 4
    assert (body["in_progress_at"], body["cancelling_at"]) == (int(NOW + 1), int(NOW + 3))


def test_a_failed_batch_tells_the_lines_at_fault() -> None:
    batch = a_file_batch().failed([LineFault("duplicate_custom_id", "m", "custom_id", 7)], NOW)

    assert json.loads(batch_object(batch).model_dump_json())["errors"] == {
        "object": "list",
        "data": [{"code": "duplicate_custom_id", "message": "m", "param": "custom_id", "line": 7}],
    }
