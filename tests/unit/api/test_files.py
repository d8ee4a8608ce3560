"""`/v1/files` as OpenAI's clients know it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator

import pytest

from synapse.api.resolver import Api
from synapse.domain.file import MAX_FILE_BYTES
from tests.unit.api.calls import api_of, call
from tests.unit.api.forms import LAST_BOUNDARY, Field, a_file, form, post, purpose, upload
from tests.unit.application.world import World

DAY_S = 86_400


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def api(world: World) -> Api:
    return api_of(world)


def stored(world: World) -> int:
    """How many files' bytes there are."""
    return sum(key.startswith("files/") for key in world.blobs.blobs)


async def test_an_uploaded_file_is_told_in_openais_shape(api: Api, world: World) -> None:
    answered = await upload(api, purpose(), a_file(b"12345"))

    now = int(world.clock())
    file_id = answered.json["id"]
    assert answered.status == 200
    assert file_id.startswith("file-")
    assert answered.json == {
        "id": file_id,
        "object": "file",
        "bytes": 5,
        "created_at": now,
        "expires_at": int(world.clock() + 30 * DAY_S),
        "filename": "in.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert (await call(api, "GET", f"/v1/files/{file_id}")).json == answered.json


@pytest.mark.parametrize("content", [b"", b"a\nb\n", "ünï 🦊".encode(), b"\x00\xff\xfe"])
async def test_the_content_comes_back_as_it_was_sent(api: Api, content: bytes) -> None:
    file_id = (await upload(api, a_file(content, "ü 1.jsonl"), purpose())).json["id"]

    event = {"httpMethod": "GET", "path": f"/v1/files/{file_id}/content", "headers": {}}
    answer = await api.answer(event, None)

    body = answer["body"]
    assert (b64decode(body) if answer["isBase64Encoded"] else body.encode()) == content
    headers = answer["multiValueHeaders"]
    assert headers["content-type"] == ["application/octet-stream"]
    assert headers["content-disposition"] == ["attachment; filename*=UTF-8''%C3%BC%201.jsonl"]


async def test_an_expiry_is_kept(api: Api, world: World) -> None:
    fields = expiry("created_at", "3600")
    file = (await upload(api, a_file(), purpose(), *fields)).json

    assert file["expires_at"] - file["created_at"] == 3600
    world.clock.advance(3600)
    gone = await call(api, "GET", f"/v1/files/{file['id']}")
    assert (gone.status, gone.error["code"]) == (404, "file_not_found")


def expiry(anchor: str, seconds: str) -> list[Field]:
    return [
        ("expires_after[anchor]", None, anchor.encode()),
        ("expires_after[seconds]", None, seconds.encode()),
    ]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ([purpose()], "file", "missing_required_parameter"),
        ([a_file()], "purpose", "missing_required_parameter"),
        ([], "file", "missing_required_parameter"),
        ([purpose("fine-tune"), a_file()], "purpose", "invalid_value"),
        ([a_file(), purpose("batch_output")], "purpose", "invalid_value"),
        ([purpose(""), a_file()], "purpose", "invalid_value"),
        ([purpose(), ("file", None, b"no filename")], "file", "invalid_value"),
        ([purpose(), a_file(filename="")], "file", "invalid_value"),
        ([purpose(), a_file(filename="folder/")], "file", "invalid_value"),
        ([purpose(), a_file(filename="x" * 600)], "file", "invalid_value"),
        ([purpose(), a_file(), a_file()], "file", "invalid_value"),
        ([purpose(), purpose(), a_file()], "purpose", "invalid_value"),
        ([purpose(), a_file(), ("colour", None, b"red")], "colour", "unknown_parameter"),
        ([("colour", None, b"red"), purpose(), a_file()], "colour", "unknown_parameter"),
        ([purpose(), a_file(), *expiry("created_at", "3599")], "expires_after.seconds", None),
        ([purpose(), a_file(), *expiry("created_at", "2592001")], "expires_after.seconds", None),
        ([purpose(), a_file(), *expiry("created_at", "1e5")], "expires_after.seconds", None),
        ([purpose(), a_file(), *expiry("created_at", "9" * 5000)], "expires_after.seconds", None),
        ([purpose(), a_file(), *expiry("last_use", "3600")], "expires_after.anchor", None),
        ([purpose(), a_file(), *expiry("", "3600")[1:]], "expires_after.anchor", None),
        ([purpose(), a_file(), *expiry("created_at", "")[:1]], "expires_after.seconds", None),
    ],
)
async def test_a_bad_form_is_refused_by_name_and_leaves_nothing(
    api: Api, world: World, fields: list[Field], param: str, code: str | None
) -> None:
    refused = await post(api, "/v1/files", form(*fields))

    assert refused.status == 400
    assert refused.error["param"] == param
    assert refused.error["code"] == code or code is None
    assert stored(world) == 0
    assert (await call(api, "GET", "/v1/files")).json["data"] == []


async def test_a_purpose_that_is_refused_names_those_that_are_not(api: Api) -> None:
    refused = await upload(api, purpose("assistants"), a_file())

    assert "taken for: batch" in refused.error["message"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"purpose":"batch"}', "application/json"),
        (b"not a form", "multipart/form-data; boundary=x"),
        (form(purpose(), a_file())[:-30], "multipart/form-data; boundary=a-boundary-of-the-tests"),
        (b"", "multipart/form-data; boundary=x"),
    ],
)
async def test_what_is_no_whole_form_is_refused_and_leaves_nothing(
    api: Api, world: World, body: bytes, content_type: str
) -> None:
    refused = await post(api, "/v1/files", body, content_type)

    assert (refused.status, refused.error["code"]) == (400, "invalid_form")
    assert stored(world) == 0


async def test_a_file_that_is_too_large_is_refused_while_it_comes_in(
    api: Api, world: World
) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        yield form(purpose(), a_file(b"")).removesuffix(LAST_BOUNDARY)
        while True:
            asked += 1
            yield bytes(1024 * 1024)

    refused = await post(api, "/v1/files", b"", incoming=endless())

    assert (refused.status, refused.error["code"]) == (413, "payload_too_large")
    assert asked <= MAX_FILE_BYTES / 1024 / 1024 + 1
    assert stored(world) == 0


async def test_a_file_that_says_it_is_too_large_is_not_read_at_all(api: Api) -> None:
    async def unread() -> AsyncIterator[bytes]:
        yield pytest.fail("the body was read")

    length = {"content-length": str(MAX_FILE_BYTES + 100_000), "content-type": "x"}
    refused = await post(api, "/v1/files", b"", incoming=unread(), headers=length)

    assert (refused.status, refused.error["param"]) == (413, "file")


async def test_a_deleted_file_is_gone_with_its_bytes(api: Api, world: World) -> None:
    file_id = (await upload(api)).json["id"]

    deleted = await call(api, "DELETE", f"/v1/files/{file_id}")

    assert deleted.status == 200
    assert deleted.json == {"id": file_id, "object": "file", "deleted": True}
    assert stored(world) == 0
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        gone = await call(api, method, f"/v1/files/{file_id}{path}")
        assert (gone.status, gone.error["code"]) == (404, "file_not_found")


async def test_a_file_whose_bytes_are_gone_is_not_found_before_anything_is_sent(
    api: Api, world: World
) -> None:
    file_id = (await upload(api)).json["id"]
    world.blobs.blobs.clear()

    answered = await call(api, "GET", f"/v1/files/{file_id}/content")

    assert (answered.status, answered.error["code"]) == (404, "file_not_found")


async def test_lists_page_as_openais_do(api: Api, world: World) -> None:
    ids = []
    for _ in range(5):
        ids.append((await upload(api)).json["id"])
        world.clock.advance(1)

    first = (await call(api, "GET", "/v1/files", query={"limit": "2"})).json
    rest = (
        await call(api, "GET", "/v1/files", query={"limit": "3", "after": first["last_id"]})
    ).json
    oldest = (await call(api, "GET", "/v1/files", query={"limit": "1", "order": "asc"})).json

    assert [file["id"] for file in first["data"]] == [ids[4], ids[3]]
    assert (first["object"], first["first_id"], first["last_id"]) == ("list", ids[4], ids[3])
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [file["id"] for file in rest["data"]] == [ids[2], ids[1], ids[0]]
    assert (oldest["data"][0]["id"], oldest["has_more"]) == (ids[0], True)


@pytest.mark.parametrize(("purpose", "count"), [("batch", 1), ("batch_output", 0), ("vision", 0)])
async def test_lists_keep_to_a_purpose(api: Api, purpose: str, count: int) -> None:
    await upload(api)

    listed = (await call(api, "GET", "/v1/files", query={"purpose": purpose})).json

    assert len(listed["data"]) == count


@pytest.mark.parametrize(
    ("name", "value"), [("limit", "0"), ("limit", "10001"), ("limit", "x"), ("order", "up")]
)
async def test_a_bad_query_is_refused_by_name(api: Api, name: str, value: str) -> None:
    refused = await call(api, "GET", "/v1/files", query={name: value})

    assert (refused.status, refused.error["param"]) == (400, name)


@pytest.mark.parametrize("file_id", ["file-none", "x", "x" * 3000, "ü" * 1000, "a%2Fb", "' OR 1=1"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/content")])
async def test_any_other_id_is_not_found(api: Api, method: str, path: str, file_id: str) -> None:
    await upload(api)

    answered = await call(api, method, f"/v1/files/{file_id}{path}")

    assert (answered.status, answered.error["code"]) == (404, "file_not_found")
