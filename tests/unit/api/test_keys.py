"""/api/admin/keys and /api/admin/tenants: their bodies, and how they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.domain.access import ALL_SCOPES, Limits, Scope, Tenant
from synapse.domain.rights import Rights
from tests.factories import NOW
from tests.unit.api.calls import Answered, call
from tests.unit.api.front_door import FrontDoor

NONE = {
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "concurrent_jobs": None,
    "max_tokens_per_request": None,
    "monthly_usd": None,
}


class Admin:
    """An admin of a tenant at the front door."""

    def __init__(self, door: FrontDoor, key: str) -> None:
        self.door = door
        self.key = key

    async def ask(self, method: str, path: str, body: object = None, **query: str) -> Answered:
        headers = {"Authorization": f"Bearer {self.key}"}
        return await call(self.door.api, method, path, body, headers, query)

    async def made(self, **body: Any) -> dict[str, Any]:
        answered = await self.ask("POST", "/api/admin/keys", {"name": "a laptop"} | body)
        assert answered.status == 201, answered.text
        made: dict[str, Any] = answered.json
        return made


@pytest.fixture
def door() -> FrontDoor:
    return FrontDoor()


@pytest.fixture
async def operator(door: FrontDoor) -> Admin:
    return Admin(door, await door.key("default"))


@pytest.fixture
async def admin(door: FrontDoor) -> Admin:
    return Admin(door, await door.key("acme"))


async def test_a_key_is_told_whole_and_its_secret_once(operator: Admin) -> None:
    answered = await operator.ask(
        "POST",
        "/api/admin/keys",
        {
            "name": "a laptop",
            "tenant": "acme",
            "scopes": ["inference"],
            "models": ["echo"],
            "tiers": ["silver", "bronze"],
            "limits": {"requests_per_minute": 60, "monthly_usd": 2.5},
            "expires_in_s": 3600,
        },
    )

    made = answered.json
    assert (answered.status, answered.headers["cache-control"]) == (201, "no-store")
    text = made.pop("key")
    assert text.startswith(f"sk-syn-{made['id']}")
    assert made == {
        "id": made["id"],
        "object": "api_key",
        "name": "a laptop",
        "tenant": "acme",
        "status": "active",
        "scopes": ["inference"],
        "models": ["echo"],
        "tiers": ["bronze", "silver"],
        "limits": NONE | {"requests_per_minute": 60, "monthly_usd": 2.5},
        "created_at": int(NOW),
        "expires_at": int(NOW) + 3600,
        "revoked_at": None,
        "jobs_cancelled_at": None,
        "rotated_at": None,
        "previous_until": None,
    }
    listed = await operator.door.ask(
        "GET", "/api/admin/keys", f"Bearer {await operator.door.key('acme')}"
    )
    assert made in listed.json["data"]
    assert text[19:] not in listed.text


async def test_a_plain_key_has_all_ordinary_rights(operator: Admin) -> None:
    made = await operator.made()

    assert made["scopes"] == ["batches", "inference", "usage"]
    assert (made["models"], made["tiers"], made["limits"]) == (None, None, NONE)
    assert (made["tenant"], made["expires_at"]) == ("default", None)


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({}, "name", "is required"),
        ({"name": ""}, "name", "at least 1 character"),
        ({"name": "x" * 101}, "name", "at most 100"),
        ({"name": "x\x1b[2J"}, "name", "can be shown in a line"),
        ({"name": "x\nkey revoked"}, "name", "can be shown in a line"),
        ({"name": "\u202egnp.x"}, "name", "can be shown in a line"),
        ({"name": "x", "scopes": ["root"]}, "scopes.0", "'inference', 'batches', 'usage' or"),
        ({"name": "x", "scopes": []}, "scopes", "at least 1"),
        ({"name": "x", "tiers": ["tin"]}, "tiers.0", "'gold', 'silver' or 'bronze'"),
        ({"name": "x", "models": ["gpt-9"]}, "models", "'gpt-9' not served here; choose from:"),
        ({"name": "x", "limits": {"rpm": 1}}, "limits.rpm", "is not a field"),
        ({"name": "x", "limits": {"monthly_usd": 0}}, "limits.monthly_usd", "greater than 0"),
        ({"name": "x", "expires_in_s": 0}, "expires_in_s", "greater than 0"),
        ({"name": "x", "tenant": "a/b"}, "tenant", "match"),
        ({"name": "x", "owner": "me"}, "owner", "is not a field"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_wrong_with_a_wish_is_named_and_nothing_is_made(
    operator: Admin, body: dict[str, Any], param: str, told: str
) -> None:
    answered = await operator.ask("POST", "/api/admin/keys", body)

    assert (answered.status, answered.error["param"]) == (400, param)
    assert told in answered.error["message"]
    assert len((await operator.ask("GET", "/api/admin/keys")).json["data"]) == 1


async def test_more_than_its_maker_has_is_refused(door: FrontDoor) -> None:
    few = Rights(frozenset({Scope.ADMIN, Scope.INFERENCE}))
    admin = Admin(door, await door.key("acme", few))

    answered = await admin.ask("POST", "/api/admin/keys", {"name": "x", "scopes": ["usage"]})

    assert (answered.status, answered.error["code"]) == (403, "more_than_its_maker")
    assert "usage" in answered.error["message"]


async def test_a_rotated_key_shows_its_new_secret_and_until_when_the_old_one_is_good(
    operator: Admin,
) -> None:
    made = await operator.made()
    path = f"/api/admin/keys/{made['id']}/rotate"

    plain = await operator.ask("POST", path)
    short = await operator.ask("POST", path, {"grace_s": 60})

    assert (plain.status, plain.headers["cache-control"]) == (201, "no-store")
    assert plain.json["previous_until"] == int(NOW) + 86_400
    assert short.json["previous_until"] == int(NOW) + 60
    assert len({made["key"], plain.json["key"], short.json["key"]}) == 3
    assert (await operator.ask("POST", path, {"grace_s": -1})).error["param"] == "grace_s"


async def test_a_key_is_revoked_with_its_jobs_if_that_is_asked_for(operator: Admin) -> None:
    made = await operator.made()
    path = f"/api/admin/keys/{made['id']}"

    wrong = await operator.ask("DELETE", path, cancel_jobs="perhaps")
    revoked = await operator.ask("DELETE", path)
    stopped = await operator.ask("DELETE", path, cancel_jobs="true")

    assert (wrong.status, wrong.error["param"]) == (400, "cancel_jobs")
    assert revoked.json["jobs_cancelled_at"] is None
    assert stopped.json["jobs_cancelled_at"] == int(NOW)
    assert (await operator.ask("DELETE", path)).json == stopped.json


async def test_a_revoked_key_is_shown_so_and_gets_no_new_secret(operator: Admin) -> None:
    made = await operator.made()
    path = f"/api/admin/keys/{made['id']}"

    revoked = await operator.ask("DELETE", path)

    assert (revoked.status, revoked.json["status"]) == (200, "revoked")
    assert (await operator.ask("DELETE", path)).json == revoked.json
    refused = await operator.ask("POST", f"{path}/rotate")
    assert (refused.status, refused.error["code"]) == (409, "key_not_active")
    used = await operator.door.ask("GET", "/v1/models", f"Bearer {made['key']}")
    assert used.status == 401


async def test_an_expired_key_is_shown_so(operator: Admin) -> None:
    made = await operator.made(expires_in_s=60)
    operator.door.world.clock.advance(60)

    listed = (await operator.ask("GET", "/api/admin/keys")).json["data"]

    assert [key["status"] for key in listed if key["id"] == made["id"]] == ["expired"]


@pytest.mark.parametrize("tenant", ["default", "umbrella", "nobody"])
async def test_an_admin_of_a_tenant_asks_for_no_other_s_keys(
    admin: Admin, operator: Admin, tenant: str
) -> None:
    await operator.made(tenant="umbrella")

    listed = await admin.ask("GET", "/api/admin/keys", tenant=tenant)
    made = await admin.ask("POST", "/api/admin/keys", {"name": "x", "tenant": tenant})

    assert (listed.status, listed.error) == (403, made.error)
    assert (made.status, made.error["code"]) == (403, "insufficient_scope")
    assert (await admin.ask("GET", "/api/admin/keys", tenant="acme")).status == 200


async def test_an_operator_asks_for_everybody_s_keys(operator: Admin) -> None:
    made = await operator.made(tenant="umbrella")
    made.pop("key")

    listed = await operator.ask("GET", "/api/admin/keys", tenant="umbrella")

    assert listed.json == {"object": "list", "data": [made]}


async def test_limits_of_a_tenant_are_set_by_the_operator_and_seen_by_its_admin(
    operator: Admin, admin: Admin
) -> None:
    body = {"limits": {"tokens_per_minute": 1000}}
    path = "/api/admin/tenants/acme"

    put = await operator.ask("PUT", path, body)

    limits = NONE | {"tokens_per_minute": 1000}
    assert put.json == {"name": "acme", "object": "tenant", "limits": limits}
    assert (await admin.ask("GET", path)).json == put.json
    for who in (operator, admin):
        assert (await who.ask("GET", "/api/admin/tenants")).json["data"] == [put.json]
    assert (await admin.ask("PUT", path, body)).status == 403
    assert (await operator.ask("PUT", path, {"limits": {}})).json["limits"] == NONE
    assert (await operator.ask("PUT", "/api/admin/tenants/-x", body)).error["param"] == "name"


async def test_limits_that_nobody_could_set_hide_no_list(operator: Admin) -> None:
    absurd = Limits(requests_per_minute=10**24, monthly_usd=1e300)
    key = await operator.door.key("default", Rights(ALL_SCOPES, limits=absurd))
    await operator.door.store.describe(Tenant("big", absurd))

    keys = await operator.ask("GET", "/api/admin/keys")
    tenants = await operator.ask("GET", "/api/admin/tenants")

    limits = NONE | {"requests_per_minute": 10**24, "monthly_usd": 1e300}
    assert [each["limits"] for each in keys.json["data"] if each["id"] == key[7:19]] == [limits]
    assert [each["limits"] for each in tenants.json["data"]] == [limits]
    assert (await operator.ask("DELETE", f"/api/admin/keys/{key[7:19]}")).status == 200


async def test_scopes_may_be_given_all(operator: Admin) -> None:
    made = await operator.made(scopes=sorted(ALL_SCOPES))

    assert made["scopes"] == ["admin", "batches", "inference", "usage"]
