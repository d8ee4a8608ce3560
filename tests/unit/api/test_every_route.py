"""Every route there is, asked by everybody who may not: the table comes from the API itself."""

from __future__ import annotations

import re

import pytest

from synapse.domain.access import ANYONE, REFUSED, Scope
from synapse.domain.rights import Rights
from tests.unit.api.calls import Answered
from tests.unit.api.front_door import (
    ALL_BUT,
    BODIES,
    HEADERS,
    MARK,
    OWNED,
    OWNER,
    PARAMETER,
    STRANGER,
    STRANGERS_RIGHTS,
    FrontDoor,
)

ROUTES = FrontDoor().api.scopes.by_route
GUARDED = {route: scope for route, scope in ROUTES.items() if scope is not None}
FREE = [route for route, scope in ROUTES.items() if scope is None]
WITH_ID = [route for route in GUARDED if "<" in route[1]]
LISTS = [route for route in GUARDED if route[0] == "GET" and "<" not in route[1]]

MALFORMED = [
    "",
    "Bearer",
    "Bearer ",
    "Basic dXNlcjpwYXNz",
    "sk-syn-0000000000000000000000000000000000000000000000000000000",
]
BAD = ["malformed key", "unknown key", "wrong secret", "expired key", "revoked key", "a token"]


def path_of(rule: str) -> str:
    """A path of that route, with ids that nothing has."""
    return PARAMETER.sub("nothing00000", rule)


def told(answered: Answered, *ids: str) -> tuple[int, dict[str, str], str]:
    """All that a caller is told, less what differs from request to request, and less the ids."""
    ours = ("x-request-id", "openai-processing-ms")
    headers = {name: value for name, value in answered.headers.items() if name not in ours}
    return answered.status, headers, re.sub("|".join(map(re.escape, ids)), "…", answered.text)


@pytest.fixture
def door() -> FrontDoor:
    return FrontDoor()


async def bad_credential(door: FrontDoor, fault: str) -> str:
    """A credential with that fault, with all rights but for it."""
    key = await door.key()
    if fault == "malformed key":
        return key + "x"
    if fault == "unknown key":
        return "sk-syn-nothing00000" + key[19:]
    if fault == "wrong secret":
        return key[:-1] + ("x" if key[-1] != "x" else "y")
    if fault == "expired key":
        ended = await door.key(expires_in_s=60.0)
        door.world.clock.advance(60)
        return ended
    if fault == "revoked key":
        await door.keys.revoke(ANYONE, key[7:19])
        return key
    return "eyJhbGciOiJub25lIn0.eyJzdWIiOiJib3NzIn0."


def test_the_table_has_the_routes() -> None:
    assert len(ROUTES) > 30
    assert set(FREE) >= {("GET", "/health"), ("GET", "/openapi.json"), ("GET", "/api/docs")}
    assert all(rule.startswith(("/api/", "/openapi", "/health")) for _, rule in FREE)


def test_every_id_in_a_path_is_one_that_these_tests_know_how_to_make() -> None:
    named = {name for _, rule in WITH_ID for name in PARAMETER.findall(rule)}

    assert named <= set(OWNED), f"say in front_door.OWNED how {named - set(OWNED)} are made"


@pytest.mark.parametrize(("method", "rule"), GUARDED, ids=" ".join)
async def test_without_a_credential_nobody_gets_past(
    door: FrontDoor, method: str, rule: str
) -> None:
    answers = [await door.ask(method, path_of(rule), each, "{") for each in [None, *MALFORMED]]

    assert {answer.status for answer in answers} == {401}
    assert {answer.error["code"] for answer in answers} == {"invalid_api_key"}
    assert {answer.error["type"] for answer in answers} == {"authentication_error"}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert len({str(told(answer)) for answer in answers}) == 1


@pytest.mark.parametrize(("method", "rule"), GUARDED, ids=" ".join)
async def test_with_a_bad_credential_nobody_gets_past_nor_learns_why(
    door: FrontDoor, method: str, rule: str
) -> None:
    answers = []
    for fault in BAD:
        credential = await bad_credential(door, fault)
        answers.append(await door.ask(method, path_of(rule), f"Bearer {credential}", "{"))
        assert credential not in answers[-1].text

    assert {answer.status for answer in answers} == {401}
    assert {answer.error["message"] for answer in answers} == {REFUSED}
    assert len({str(told(answer)) for answer in answers}) == 1


@pytest.mark.parametrize(("method", "rule"), GUARDED, ids=" ".join)
async def test_who_has_all_scopes_but_one_is_refused_where_that_is_asked_for(
    door: FrontDoor, method: str, rule: str
) -> None:
    for scope in Scope:
        key = await door.key(rights=Rights(ALL_BUT[scope]))

        answered = await door.ask(method, path_of(rule), f"Bearer {key}", "{")

        refused = answered.status == 403 and answered.error["code"] == "insufficient_scope"
        assert refused == (scope is GUARDED[method, rule]), answered.text


@pytest.mark.parametrize(("method", "rule"), FREE, ids=" ".join)
async def test_what_is_for_everybody_looks_at_no_credential(
    door: FrontDoor, method: str, rule: str
) -> None:
    answers = [await door.ask(method, path_of(rule), each) for each in [None, *MALFORMED]]

    assert len({str(told(answer)) for answer in answers}) == 1
    assert answers[0].status in (200, 400, 404)


@pytest.mark.parametrize(("method", "rule"), WITH_ID, ids=" ".join)
async def test_another_tenant_s_id_is_one_that_nothing_has(
    door: FrontDoor, method: str, rule: str
) -> None:
    owner, stranger = await door.key(OWNER), await door.key(STRANGER, STRANGERS_RIGHTS)
    [parameter] = PARAMETER.findall(rule)
    foreign = await OWNED[parameter].make(door, owner)
    unknown = OWNED[parameter].unknown(foreign)
    body, headers = BODIES.get((method, rule)), HEADERS.get((method, rule))
    before = await seen_by_owner(door, rule, foreign, owner)

    answers = {
        id_: await door.ask(method, PARAMETER.sub(id_, rule), f"Bearer {stranger}", body, headers)
        for id_ in (foreign, unknown)
    }

    assert told(answers[foreign], foreign) == told(answers[unknown], unknown)
    assert answers[foreign].status == (403 if method == "PUT" else 404), answers[foreign].text
    assert answers[foreign].error["type"] in ("invalid_request_error", "authentication_error")
    assert MARK not in answers[foreign].text
    # Nothing was done to it, and its owner may do it.
    assert await seen_by_owner(door, rule, foreign, owner) == before
    mine = await door.ask(method, PARAMETER.sub(foreign, rule), f"Bearer {owner}", body, headers)
    assert mine.status not in (401, 404), mine.text


async def seen_by_owner(door: FrontDoor, rule: str, id_: str, key: str) -> list[str]:
    """What the owner sees of it, wherever it may be read; nothing is known to be there twice."""
    readable = [path for method, path in WITH_ID if method == "GET" and path in rule]
    asked = [PARAMETER.sub(id_, path) for path in readable]
    if "<key_id>" in rule:
        asked = ["/api/admin/keys"]
    if "<webhook_id>" in rule:
        asked = ["/api/webhooks"]
    return [(await door.ask("GET", path, f"Bearer {key}")).text for path in asked]


@pytest.mark.parametrize(("method", "rule"), LISTS, ids=" ".join)
async def test_no_list_shows_what_is_another_tenant_s(
    door: FrontDoor, method: str, rule: str
) -> None:
    owner, stranger = await door.key(OWNER), await door.key(STRANGER, STRANGERS_RIGHTS)
    ids = [await owned.make(door, owner) for name, owned in OWNED.items() if name != "model"]

    answered = await door.ask(method, rule, f"Bearer {stranger}")

    assert answered.status in (200, 400), answered.text
    assert not [id_ for id_ in (*ids, MARK, owner[7:19]) if id_ in answered.text]


async def test_a_batch_cannot_be_made_of_another_tenant_s_file(door: FrontDoor) -> None:
    owner, stranger = await door.key(OWNER), await door.key(STRANGER)
    foreign = await OWNED["file_id"].make(door, owner)
    unknown = OWNED["file_id"].unknown(foreign)
    window = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}

    answers = {
        id_: await door.ask("POST", "/v1/batches", f"Bearer {who}", {"input_file_id": id_} | window)
        for id_, who in ((foreign, stranger), (unknown, stranger))
    }

    assert told(answers[foreign], foreign) == told(answers[unknown], unknown)
    assert answers[foreign].error["code"] == "file_not_found"


async def test_an_upload_cannot_be_made_of_another_tenant_s_parts(door: FrontDoor) -> None:
    owner, stranger = await door.key(OWNER), await door.key(STRANGER)
    theirs = await OWNED["upload_id"].make(door, owner)
    parts = ("POST", "/v1/uploads/<upload_id>/parts")
    path = parts[1].replace("<upload_id>", theirs)
    added = await door.ask("POST", path, f"Bearer {owner}", BODIES[parts], HEADERS[parts])
    foreign: str = added.json["id"]
    unknown = foreign[:-6] + "zzzzzz"
    mine = await OWNED["upload_id"].make(door, stranger)

    answers = {
        id_: await door.ask(
            "POST", f"/v1/uploads/{mine}/complete", f"Bearer {stranger}", {"part_ids": [id_]}
        )
        for id_ in (foreign, unknown)
    }

    assert told(answers[foreign], foreign) == told(answers[unknown], unknown)
    assert answers[foreign].status == 400
