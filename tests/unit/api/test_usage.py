"""`GET /v1/usage`: whose, which days, how told apart; CSV that no spreadsheet computes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import pytest

from synapse.api.gate import Identify
from synapse.domain.access import ORDINARY_SCOPES, Principal, Scope
from synapse.domain.usage import UsageKey, Used, day_of
from tests.factories import NOW
from tests.unit.api.calls import Answered, api_of, call
from tests.unit.application.world import World

TODAY = day_of(NOW)  # 2023-11-14
ACME = Principal("acme", "key-1", ORDINARY_SCOPES)
OPERATOR = Principal()


def as_(caller: Principal) -> Identify:
    async def identify(event: Mapping[str, Any]) -> Principal:
        return caller

    return identify


async def a_world() -> World:
    world = World()
    rows = [
        ("acme", "key-1", "echo", TODAY, Used(3, 1, 10, 20, 5, 1_500_000, 500_000)),
        ("acme", "key-2", "echo", "2023-11-13", Used(1, 0, 1, 1, 0, 1, 2)),
        ("acme", "key-1", "smollm2", "2023-10-31", Used(7)),
        ("other", "key-9", "echo", TODAY, Used(100)),
    ]
    for tenant, account, model, day, used in rows:
        await world.usage.add(UsageKey(tenant, account, model, day), used)
    return world


async def asked(
    world: World, query: dict[str, str] | None = None, caller: Principal = ACME
) -> Answered:
    return await call(api_of(world, as_(caller)), "GET", "/v1/usage", query=query)


async def test_without_more_it_is_ones_own_of_this_month_by_day() -> None:
    answer = await asked(await a_world())

    assert answer.status == 200
    body = answer.json
    assert (body["tenant"], body["group_by"]) == ("acme", "day")
    assert (body["first_day"], body["last_day"]) == ("2023-11-01", TODAY)
    assert [row["name"] for row in body["data"]] == ["2023-11-13", TODAY]
    assert body["data"][1] == {
        "name": TODAY,
        "requests": 3,
        "errors": 1,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cached_tokens": 5,
        "active_usd": 1.5e-6,
        "warm_usd": 5e-7,
        "cost_usd": 2e-6,
    }
    assert body["total"]["requests"] == 4
    assert body["has_more"] is False


@pytest.mark.parametrize(
    ("by", "names"), [("key", ["key-1", "key-2"]), ("model", ["echo", "smollm2"])]
)
async def test_it_is_told_apart_as_asked(by: str, names: list[str]) -> None:
    query = {"from": "2023-10-01", "group_by": by}
    answer = await asked(await a_world(), query)

    assert [row["name"] for row in answer.json["data"]] == names
    assert answer.json["total"]["requests"] == 11


async def test_rows_come_in_pages() -> None:
    world, query = await a_world(), {"from": "2023-10-01", "limit": "2"}

    first = (await asked(world, query)).json
    second = (await asked(world, query | {"after": first["last_name"]})).json

    assert [row["name"] for row in first["data"]] == ["2023-10-31", "2023-11-13"]
    assert first["has_more"] is True
    assert [row["name"] for row in second["data"]] == [TODAY]
    assert second["has_more"] is False
    assert first["total"] == second["total"]


async def test_csv_is_had_by_format_or_by_accept() -> None:
    world = await a_world()
    api = api_of(world, as_(ACME))

    by_format = await call(api, "GET", "/v1/usage", query={"format": "csv"})
    by_accept = await call(api, "GET", "/v1/usage", headers={"Accept": "text/csv"})
    json = await call(
        api, "GET", "/v1/usage", headers={"Accept": "text/csv"}, query={"format": "json"}
    )

    assert by_format.text == by_accept.text
    assert by_format.headers["content-type"].startswith("text/csv")
    assert by_format.headers["content-disposition"] == (
        f'attachment; filename="usage-2023-11-01-{TODAY}.csv"'
    )
    rows = list(csv.reader(io.StringIO(by_format.text)))
    assert rows[0][:2] == ["day", "requests"]
    assert rows[2] == [
        TODAY,
        *("3", "1", "10", "20", "5"),
        *("0.000001500000", "0.000000500000", "0.000002000000"),
    ]
    assert json.headers["content-type"] == "application/json"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
async def test_a_name_that_a_spreadsheet_would_compute_is_made_a_text(name: str) -> None:
    world = World()
    await world.usage.add(UsageKey("acme", name, "echo", TODAY), Used(1))

    answer = await asked(world, {"group_by": "key", "format": "csv"})

    [_, row] = csv.reader(io.StringIO(answer.text, newline=""))
    assert row[0] == f"'{name}"


async def test_names_with_commas_quotes_and_line_ends_stay_one_cell() -> None:
    world, name = World(), 'a,"b"\r\n=c'
    await world.usage.add(UsageKey("acme", name, "echo", TODAY), Used(1))

    answer = await asked(world, {"group_by": "key", "format": "csv"})

    assert [row[0] for row in csv.reader(io.StringIO(answer.text, newline=""))] == ["key", name]


async def test_another_tenants_usage_is_for_admins_of_the_default_tenant() -> None:
    world = await a_world()
    admin = Principal("acme", "key-3", frozenset({Scope.USAGE, Scope.ADMIN}))

    refused = [await asked(world, {"tenant": "other"}, caller) for caller in (ACME, admin)]
    nowhere = await asked(world, {"tenant": "nobody"})
    allowed = await asked(world, {"tenant": "other"}, OPERATOR)

    assert [answer.status for answer in refused] == [403, 403]
    assert nowhere.error["message"] == refused[0].error["message"]
    assert allowed.json["total"]["requests"] == 100


async def test_it_takes_the_scope_for_it() -> None:
    caller = Principal("acme", "key-1", frozenset({Scope.INFERENCE}))

    assert (await asked(World(), caller=caller)).status == 403


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": "2023-02-30"}, "from"),
        ({"to": "20231114"}, "to"),
        ({"from": "2023-11-15"}, "from"),
        ({"from": "2022-11-01"}, "from"),
        ({"group_by": "colour"}, "group_by"),
        ({"format": "xml"}, "format"),
        ({"limit": "0"}, "limit"),
        ({"tenant": "a b"}, "tenant"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(query: dict[str, str], param: str) -> None:
    answer = await asked(World(), query)

    assert answer.status == 400
    assert answer.error["param"] == param
