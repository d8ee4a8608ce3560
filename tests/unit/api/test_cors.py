"""Which pages may call from a browser: none, but those whose origin is named."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.api.gate import from_authorizer
from synapse.api.resolver import Api, Reply
from synapse.domain.access import Scope
from synapse.domain.origin import is_origin
from tests.unit.api.calls import Answered, call

APP, OTHER = "https://app.example.com", "https://evil.example.com"


def an_api(*origins: str) -> Api:
    api = Api(from_authorizer, origins)

    @api.handles("GET", "/open", scope=None)
    async def open_to_all() -> Reply:
        return Reply({"a": 1})

    @api.handles("POST", "/closed", scope=Scope.INFERENCE)
    async def closed() -> Reply:
        return Reply({"a": 1})

    return api


async def asked_first(api: Api, origin: str, path: str = "/closed") -> Answered:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    return await call(api, "OPTIONS", path, headers=headers)


def told(answer: Answered) -> dict[str, Any]:
    return {k: v for k, v in answer.headers.items() if k.startswith("access-control-")}


async def test_no_page_may_by_default() -> None:
    before = await asked_first(an_api(), APP)
    answer = await call(an_api(), "GET", "/open", headers={"origin": APP})

    assert (before.status, told(before)) == (405, {})
    assert (answer.status, told(answer)) == (200, {})
    assert "vary" not in answer.headers


async def test_a_named_origin_may_also_send_a_key() -> None:
    before = await asked_first(an_api(APP), APP)
    answer = await call(an_api(APP), "GET", "/open", headers={"origin": APP})

    assert before.status == 204
    assert before.headers["access-control-allow-origin"] == APP
    assert before.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in before.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["vary"] == "Origin"


async def test_another_origin_may_not_and_nothing_kept_for_one_is_given_to_it() -> None:
    before = await asked_first(an_api(APP), OTHER)
    answer = await call(an_api(APP), "GET", "/open", headers={"Origin": OTHER})

    assert (before.status, told(before)) == (405, {})
    assert told(answer) == {}
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", ["null", "", "https://app.example.com.evil.com", "HTTPS://APP"])
async def test_what_is_only_like_an_origin_is_another(origin: str) -> None:
    answer = await call(an_api(APP), "GET", "/open", headers={"origin": origin})

    assert told(answer) == {}


async def test_a_page_may_read_why_it_was_refused() -> None:
    answer = await call(an_api(APP), "POST", "/closed", {}, headers={"origin": APP})

    assert answer.status == 401
    assert answer.headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize("origin", [APP, "app://obsidian.md", "null"])
async def test_any_page_may_if_that_is_said(origin: str) -> None:
    before = await asked_first(an_api("*"), origin)
    answer = await call(an_api("*"), "POST", "/closed", {}, headers={"origin": origin})

    assert (before.status, before.headers["access-control-allow-origin"]) == (204, "*")
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (401, "*")
    assert "access-control-allow-credentials" not in answer.headers
    assert told(await call(an_api("*"), "GET", "/open")) == {}


async def test_nobody_is_let_to_send_cookies() -> None:
    for answer in (
        await asked_first(an_api(APP), APP),
        await call(an_api(APP), "GET", "/open", headers={"origin": APP}),
    ):
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://app.example.com", True),
        ("http://localhost:3000", True),
        ("http://[::1]:3000", True),
        ("app://obsidian.md", True),
        ("chrome-extension://lkjhgfdsapoiuytrewqmnbvcxzasdfgh", True),
        ("capacitor://localhost", True),
        ("*", False),
        ("null", False),
        ("app.example.com", False),
        ("https://app.example.com/", False),
        ("https://*.example.com", False),
        ("https://a b", False),
        ("file://", False),
        ("://a", False),
        ("1a://b", False),
    ],
)
def test_origins_are_written_as_browsers_write_them(text: str, expected: bool) -> None:
    assert is_origin(text) == expected
