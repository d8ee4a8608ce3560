"""`/v1/uploads`: files in parts."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from synapse.api.resolver import Api
from synapse.domain.file import MAX_FILE_BYTES
from tests.unit.api.calls import Answered, api_of, call
from tests.unit.api.forms import Field, a_file, form, post
from tests.unit.application.world import World

BEGIN: dict[str, Any] = {
    "bytes": 10,
    "filename": "in.jsonl",
    "mime_type": "text/jsonl",
    "purpose": "batch",
}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def api(world: World) -> Api:
    return api_of(world)


async def begun(api: Api, **changes: Any) -> str:
    answered = await call(api, "POST", "/v1/uploads", {**BEGIN, **changes})
    assert answered.status == 200
    upload_id: str = answered.json["id"]
    return upload_id


async def add(api: Api, upload_id: str, *fields: Field) -> Answered:
    return await post(api, f"/v1/uploads/{upload_id}/parts", form(*fields))


async def added(api: Api, upload_id: str, content: bytes) -> str:
    part = await add(api, upload_id, a_file(content, name="data"))
    assert part.status == 200
    part_id: str = part.json["id"]
    return part_id


async def complete(api: Api, upload_id: str, *part_ids: str, **more: Any) -> Answered:
    body = {"part_ids": list(part_ids), **more}
    return await call(api, "POST", f"/v1/uploads/{upload_id}/complete", body)


async def test_parts_become_a_file_in_the_order_that_is_asked_for(api: Api, world: World) -> None:
    upload_id = await begun(api, expires_after={"anchor": "created_at", "seconds": 7200})
    second = await added(api, upload_id, b"56789")
    first = await added(api, upload_id, b"01234")
    await added(api, upload_id, b"not used")

    digest = hashlib.md5(b"0123456789", usedforsecurity=False).hexdigest()
    done = await complete(api, upload_id, first, second, md5=digest)

    assert (done.status, done.json["status"], done.json["object"]) == (200, "completed", "upload")
    file = done.json["file"]
    assert (file["bytes"], file["filename"], file["purpose"]) == (10, "in.jsonl", "batch")
    assert file["expires_at"] - file["created_at"] == 7200
    content = await call(api, "GET", f"/v1/files/{file['id']}/content")
    assert content.text == "0123456789"
    assert [key for key in world.blobs.blobs if key.startswith("uploads/")] == []


async def test_an_upload_is_told_in_openais_shape(api: Api, world: World) -> None:
    answered = await call(api, "POST", "/v1/uploads", BEGIN)

    assert answered.json == {
        "id": answered.json["id"],
        "object": "upload",
        "bytes": 10,
        "created_at": int(world.clock()),
        "expires_at": int(world.clock() + 3600),
        "filename": "in.jsonl",
        "purpose": "batch",
        "status": "pending",
        "file": None,
    }
    assert answered.json["id"].startswith("upload_")
    part = await add(api, answered.json["id"], a_file(name="data"))
    assert part.json == {
        "id": part.json["id"],
        "object": "upload.part",
        "created_at": int(world.clock()),
        "upload_id": answered.json["id"],
    }
    assert part.json["id"].startswith("part_")


async def test_completing_again_gives_the_same_file(api: Api) -> None:
    upload_id = await begun(api)
    part = await added(api, upload_id, b"0123456789")

    first = await complete(api, upload_id, part)
    again = await complete(api, upload_id, part)

    assert again.json == first.json
    assert len((await call(api, "GET", "/v1/files")).json["data"]) == 1


async def test_completed_by_two_at_once_it_is_one_file(api: Api) -> None:
    upload_id = await begun(api)
    part = await added(api, upload_id, b"0123456789")

    done = await asyncio.gather(*(complete(api, upload_id, part) for _ in range(4)))

    files = [answered.json["file"]["id"] for answered in done if answered.status == 200]
    assert files
    assert len(set(files)) == 1
    assert {answered.status for answered in done} <= {200, 503}
    assert len((await call(api, "GET", "/v1/files")).json["data"]) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"part_ids": []}, "part_ids"),
        ({"part_ids": ["part_none"]}, "part_ids"),
        ({"part_ids": ["PART", "PART"]}, "part_ids"),
        ({"part_ids": ["PART"], "md5": "0" * 32}, "md5"),
        ({"part_ids": ["PART"], "md5": "no digest"}, "md5"),
        ({}, "part_ids"),
        ({"part_ids": ["PART"], "more": 1}, "more"),
    ],
)
async def test_parts_that_do_not_make_the_file_are_refused(
    api: Api, world: World, body: dict[str, Any], param: str
) -> None:
    upload_id = await begun(api)
    part = await added(api, upload_id, b"0123456789")
    if "part_ids" in body:
        body = {**body, "part_ids": [name.replace("PART", part) for name in body["part_ids"]]}

    refused = await call(api, "POST", f"/v1/uploads/{upload_id}/complete", body)

    assert (refused.status, refused.error["param"]) == (400, param)
    assert (await call(api, "GET", "/v1/files")).json["data"] == []
    assert not any(key.startswith("files/") for key in world.blobs.blobs)
    assert (await complete(api, upload_id, part)).status == 200


async def test_fewer_bytes_than_announced_are_refused(api: Api) -> None:
    upload_id = await begun(api)
    part = await added(api, upload_id, b"012345678")

    refused = await complete(api, upload_id, part)

    assert "9 bytes" in refused.error["message"]


async def test_a_cancelled_upload_is_over(api: Api, world: World) -> None:
    upload_id = await begun(api)
    part = await added(api, upload_id, b"0123456789")

    cancelled = await call(api, "POST", f"/v1/uploads/{upload_id}/cancel")

    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    assert world.blobs.blobs == {}
    assert (await call(api, "POST", f"/v1/uploads/{upload_id}/cancel")).status == 200
    for refused in (
        await complete(api, upload_id, part),
        await add(api, upload_id, a_file(name="data")),
    ):
        assert (refused.status, refused.error["code"]) == (400, "upload_not_pending")


async def test_a_completed_upload_is_not_cancelled(api: Api) -> None:
    upload_id = await begun(api)
    await complete(api, upload_id, await added(api, upload_id, b"0123456789"))

    refused = await call(api, "POST", f"/v1/uploads/{upload_id}/cancel")

    assert (refused.status, refused.error["code"]) == (400, "upload_not_pending")


async def test_an_upload_has_an_hour(api: Api, world: World) -> None:
    upload_id = await begun(api)
    part = await added(api, upload_id, b"0123456789")
    world.clock.advance(3600)

    refused = await complete(api, upload_id, part)

    assert (refused.status, refused.error["code"]) == (400, "upload_not_pending")
    assert "expired" in refused.error["message"]


@pytest.mark.parametrize("path", ["/parts", "/complete", "/cancel"])
async def test_an_unknown_upload_is_not_found(api: Api, path: str) -> None:
    if path == "/parts":
        answered = await add(api, "upload_none", a_file(name="data"))
    else:
        answered = await call(api, "POST", f"/v1/uploads/upload_none{path}", {"part_ids": []})

    assert (answered.status, answered.error["code"]) == (404, "upload_not_found")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([], "data"),
        ([a_file(name="file")], "file"),
        ([a_file(name="data"), a_file(name="data")], "data"),
        ([a_file(name="data"), ("more", None, b"1")], "more"),
    ],
)
async def test_a_bad_part_is_refused_and_leaves_nothing(
    api: Api, world: World, fields: list[Field], param: str
) -> None:
    refused = await add(api, await begun(api), *fields)

    assert (refused.status, refused.error["param"]) == (400, param)
    assert world.blobs.blobs == {}


async def test_a_part_larger_than_the_whole_is_refused(api: Api, world: World) -> None:
    refused = await add(api, await begun(api), a_file(b"01234567890", name="data"))

    assert (refused.status, refused.error["param"]) == (413, "data")
    assert world.blobs.blobs == {}


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"purpose": "vision"}, 400, "purpose"),
        ({"filename": ""}, 400, "filename"),
        ({"bytes": -1}, 400, "bytes"),
        ({"bytes": MAX_FILE_BYTES + 1}, 413, "bytes"),
        ({"mime_type": None}, 400, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "expires_after.seconds"),
        ({"colour": "red"}, 400, "colour"),
    ],
)
async def test_a_bad_beginning_is_refused_by_name(
    api: Api, changes: dict[str, Any], status: int, param: str
) -> None:
    refused = await call(api, "POST", "/v1/uploads", {**BEGIN, **changes})

    assert (refused.status, refused.error["param"]) == (status, param)
