"""Bad input: a 4xx in the error shape that names the field, and nothing enqueued."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.api.calls import api_of, call
from tests.unit.application.world import CHAT, World

GOOD = {"model": "echo", "prompt": "x"}
TALK = {"model": CHAT, "messages": [{"role": "user", "content": "x"}]}

CASES: list[tuple[object, int, str | None, str]] = [
    ({"prompt": "x"}, 400, "model", "missing_required_parameter"),
    ({**GOOD, "model": "gpt-9"}, 404, "model", "model_not_found"),
    ({**GOOD, "model": 7}, 400, "model", "invalid_type"),
    ({**GOOD, "model": ""}, 400, "model", "invalid_value"),
    ({**GOOD, "prompt": ""}, 400, "prompt", "invalid_value"),
    ({**GOOD, "prompt": ["x"]}, 400, "prompt", "invalid_type"),
    ({**GOOD, "prompt": "x" * 10_000_000}, 413, "prompt", "payload_too_large"),
    ({"model": "echo"}, 400, "prompt", "invalid_value"),
    ({**GOOD, "messages": [{"role": "user", "content": "x"}]}, 400, "prompt", "invalid_value"),
    ({"model": "echo", "messages": []}, 400, "messages", "invalid_value"),
    (
        {"model": "echo", "messages": [{"role": "wizard", "content": "x"}]},
        400,
        "messages.0.role",
        "invalid_value",
    ),
    ({**GOOD, "parameters": {"max_tokens": -1}}, 400, "parameters.max_tokens", "invalid_value"),
    ({**GOOD, "parameters": {"max_tokens": 0}}, 400, "parameters.max_tokens", "invalid_value"),
    ({**GOOD, "parameters": {"max_tokens": "9"}}, 400, "parameters.max_tokens", "invalid_type"),
    ({**GOOD, "parameters": {"max_tokens": True}}, 400, "parameters.max_tokens", "invalid_type"),
    ({**GOOD, "parameters": {"temperature": 3}}, 400, "parameters.temperature", "invalid_value"),
    ({**GOOD, "parameters": {"top_p": -0.1}}, 400, "parameters.top_p", "invalid_value"),
    ({**GOOD, "parameters": {"stop": 5}}, 400, "parameters.stop", "invalid_type"),
    ({**GOOD, "parameters": {"magic": 1}}, 400, "parameters.magic", "unknown_parameter"),
    ({**GOOD, "reasoning_effort": "low"}, 400, "reasoning_effort", "invalid_value"),
    ({**TALK, "reasoning_effort": "much"}, 400, "reasoning_effort", "invalid_value"),
    (
        {**TALK, "reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}},
        400,
        "reasoning_effort",
        "invalid_value",
    ),
    ({**GOOD, "chat_template_kwargs": {"a": 1}}, 400, "chat_template_kwargs", "invalid_value"),
    ({**TALK, "chat_template_kwargs": {"tools": 1}}, 400, "chat_template_kwargs", "invalid_value"),
    ({**GOOD, "priority": "urgent"}, 400, "priority", "invalid_value"),
    ({**GOOD, "sla": "platinum"}, 400, "sla", "invalid_value"),
    ({**GOOD, "timeout": -5}, 400, "timeout", "invalid_value"),
    ({**GOOD, "timeout": 1e9}, 400, "timeout", "invalid_value"),
    ({**GOOD, "metadata": {"a": 1}}, 400, "metadata.a", "invalid_type"),
    ({**GOOD, "callback_url": "http://x"}, 400, "callback_url", "invalid_value"),
    ("{not json", 400, None, "invalid_json"),
    ('{"model":"echo","prompt":%s}' % ("9" * 5_000), 400, None, "invalid_json"),
    ('{"model":' * 100_000, 400, None, "invalid_json"),
    ('{"model":"echo","prompt":"\\ud800"}', 400, "prompt", "invalid_value"),
    ([GOOD], 400, None, "invalid_json"),
    ("5", 400, None, "invalid_json"),
    ("", 400, None, "missing_required_parameter"),
    (None, 400, None, "missing_required_parameter"),
]


@pytest.mark.parametrize(("body", "status", "param", "code"), CASES)
async def test_a_bad_body_is_told_what_where_and_enqueues_nothing(
    body: object, status: int, param: str | None, code: str
) -> None:
    world = World()

    refused = await call(api_of(world), "POST", "/async-infer", body)

    assert refused.status == status
    assert (refused.error["param"], refused.error["code"]) == (param, code)
    assert refused.error["type"] == "invalid_request_error"
    if param is not None:
        assert refused.error["message"].startswith(f"{param}:")
    assert not world.store.jobs
    assert not world.queue.messages


@pytest.mark.parametrize(
    ("method", "path", "query", "status", "code"),
    [
        ("GET", "/results/unknown", None, 404, "job_not_found"),
        ("DELETE", "/results/unknown", None, 404, "job_not_found"),
        ("GET", "/api/inference/unknown", None, 404, "job_not_found"),
        ("GET", "/results/unknown", {"wait": "soon"}, 400, "invalid_value"),
        ("GET", "/results/unknown", {"wait": "-1"}, 400, "invalid_value"),
        ("GET", "/results/unknown", {"wait": "nan"}, 400, "invalid_value"),
        ("GET", "/v1/models/unknown", None, 404, "model_not_found"),
        ("GET", "/nowhere", None, 404, "route_not_found"),
        ("PUT", "/async-infer", None, 405, "method_not_allowed"),
        ("GET", "/api/static/secrets.txt", None, 404, "file_not_found"),
    ],
)
async def test_a_bad_address_is_told_so(
    method: str, path: str, query: dict[str, str] | None, status: int, code: str
) -> None:
    refused = await call(api_of(World()), method, path, query=query)

    assert refused.status == status
    assert refused.error["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "hint"),
    [
        ("GET", "/models", "ends in /v1, once"),
        ("POST", "/chat/completions", "ends in /v1, once"),
        ("GET", "/v1/v1/models", "ends in /v1, once"),
        ("POST", "/v1//chat/completions", "ends in /v1, once"),
        ("GET", "/v1/v1//models/echo", "ends in /v1, once"),
        ("POST", "/v1/moderations", "moderations is not served here"),
        ("POST", "/v1/audio/speech", "audio is not served here"),
        ("GET", "/fine_tuning/jobs", "fine_tuning is not served here"),
        ("GET", "/v1/threads/t/runs", "threads is not served here"),
        ("GET", "/nowhere", "no such route; /api/docs lists them"),
        ("GET", "/v1" * 9000, "no such route; /api/docs lists them"),
    ],
)
async def test_who_looks_in_the_wrong_place_is_told_where(
    method: str, path: str, hint: str
) -> None:
    refused = await call(api_of(World()), method, path)

    assert (refused.status, refused.error["code"]) == (404, "route_not_found")
    assert hint in refused.error["message"]


async def test_an_error_of_ours_says_nothing_of_its_cause() -> None:
    world = World()

    async def broken(_: str) -> None:
        raise RuntimeError("password=hunter2")

    world.registry.model = broken
    refused = await call(api_of(world), "POST", "/async-infer", GOOD)

    assert refused.status == 500
    assert refused.error["type"] == "server_error"
    assert "hunter2" not in refused.text
    assert refused.headers["x-request-id"] == "req-1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["model", "prompt", "messages", "parameters", "priority", "sla", "timeout", "metadata", "x"]
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(changes=st.dictionaries(FIELDS, JSON, max_size=4))
async def test_no_body_makes_the_server_fail(changes: dict[str, Any]) -> None:
    answer = await call(api_of(World()), "POST", "/async-infer", {**GOOD, **changes})

    assert answer.status == 202 or 400 <= answer.status < 500
