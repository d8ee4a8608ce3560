"""Requests that pass by the resolver are answered as it would answer them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from unittest.mock import patch

import pytest
from aws_lambda_powertools.event_handler.openapi.params import Body, Header, Query
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from synapse.api.resolver import Api, Reply
from synapse.api.shortcuts import Shortcuts
from synapse.domain.access import Principal, Scope
from tests.unit.api.calls import api_of, call
from tests.unit.api.test_chat import HELLO
from tests.unit.application.world import World


class Wish(BaseModel):
    """A body with what bodies have."""

    model: str = Field(min_length=1)
    prompt: str | list[str] | None = None
    n: Annotated[int, Field(ge=1, le=8)] = 1
    extra: dict[str, Any] | None = None


def an_api() -> Api:
    """Handlers with all kinds of arguments, which answer what they were called with."""
    api = Api()

    @api.handles("GET", "/things", scope=None)
    async def things(
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Annotated[Literal["asc", "desc"], Query()] = "asc",
        after: Annotated[str | None, Query(alias="from", max_length=5)] = None,
        wait: Annotated[float, Query(ge=0)] = 0.0,
        is_all: Annotated[bool, Query()] = False,
        key: Annotated[str | None, Header(alias="Idempotency-Key", min_length=1)] = None,
    ) -> Reply:
        return Reply({"given": repr((limit, order, after, wait, is_all, key))})

    @api.handles("GET", "/things/<name>", scope=None)
    async def thing(name: str, count: Annotated[int, Query()]) -> Reply:
        return Reply({"given": repr((name, count))})

    @api.handles("GET", "/things/special", scope=None)
    async def special() -> Reply:
        return Reply({"given": "nothing"})

    @api.handles("POST", "/things/<name>", scope=Scope.INFERENCE)
    async def make(
        caller: Principal,
        name: str,
        body: Annotated[Wish, Body()],
        retries: Annotated[int | None, Header(alias="X-Retries")] = None,
    ) -> Reply:
        return Reply({"given": repr((caller.tenant, name, body.model_dump(), retries))})

    @api.handles("POST", "/maybe", scope=Scope.INFERENCE)
    async def maybe(body: Annotated[Wish | None, Body()] = None) -> Reply:
        return Reply({"given": repr(body and body.model_dump())})

    return api


TEXTS = st.sampled_from(
    ["", "1", "20", "-1", "x", "asc", "true", "0.5", "1,2", "sixsix", "é", " 7"]
)
VALUES = st.lists(TEXTS, min_size=1, max_size=1) | st.lists(TEXTS, min_size=2, max_size=2)
QUERY = st.dictionaries(
    st.just("count")
    | st.sampled_from(["limit", "order", "from", "after", "wait", "is_all", "Count"]),
    VALUES,
)
NAMES = st.sampled_from(
    ["Idempotency-Key", "idempotency-key", "X-Retries", "x-retries", "Content-Type", "x-other"]
)
PATHS = st.sampled_from(
    [
        "/things",
        "/things/",
        "/things//",
        "/things/special",
        "/things/special/",
        "/things/one",
        "/things/two",
        "/things/one/",
        "/things/one/two",
        "/things/a%20b",
        "/maybe",
        "/nothing",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.text("a\ud800é", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["model", "prompt", "n", "extra", "other"]), inner)
    ),
    max_leaves=4,
)
WISHES = st.fixed_dictionaries(
    {"model": st.just("echo") | JSON},
    optional={"prompt": st.text() | JSON, "n": st.integers(1, 9), "extra": JSON},
)
BODIES = st.none() | st.sampled_from(["", "{", "{}", "[1]", '{"n": 1' + "0" * 5000 + "}"])


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """Proxy events as API Gateway and ours make them, and as somebody writes them by hand."""
    query, headers = draw(QUERY), draw(st.dictionaries(NAMES, VALUES))
    event = {
        "httpMethod": draw(st.sampled_from(["GET", "POST", "get"])),
        "path": draw(PATHS),
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()},
        "multiValueQueryStringParameters": query,
        "requestContext": {"stage": "$default", "requestId": "r"},
        "body": draw(BODIES | st.builds(json.dumps, JSON) | st.builds(json.dumps, WISHES)),
        "isBase64Encoded": draw(st.integers(0, 9)) == 9,
    }
    for name in draw(st.sets(st.sampled_from(["multiValueHeaders", "queryStringParameters"]))):
        event[name] = None
    if draw(st.booleans()):
        event["multiValueQueryStringParameters"] = None
    return event


API, RESOLVED = an_api(), an_api()


@settings(max_examples=500)
@given(events())
async def test_passing_by_the_resolver_makes_no_difference(event: dict[str, Any]) -> None:
    straight = await API.answer(event, None)
    with patch.object(Shortcuts, "call", lambda *_: None):
        resolved = await RESOLVED.answer(event, None)

    assert straight == resolved


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", HELLO),
        ("POST", "/v1/completions", {"model": "echo", "prompt": "a"}),
        ("POST", "/v1/responses", {"model": "smollm2-135m-instruct", "input": "a"}),
        ("POST", "/v1/embeddings", {"model": "all-minilm-l6-v2", "input": "a"}),
        ("POST", "/async-infer", {"model": "echo", "prompt": "a"}),
        ("POST", "/infer", {"model": "echo", "prompt": "a"}),
        ("GET", "/results/01a20117671441e7", None),
        ("GET", "/v1/models", None),
    ],
)
async def test_what_is_asked_for_often_passes(method: str, path: str, body: object) -> None:
    """It has arrived where ids and models are looked up, or been answered."""
    with patch.object(Api, "resolve", side_effect=AssertionError):
        answered = await call(api_of(World()), method, path, body)

    assert answered.status in (200, 202, 404), answered.text
