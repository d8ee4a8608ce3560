"""POST /v1/chat/completions and /v1/completions: what is refused, and how that is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synapse.api.resolver import Api
from synapse.domain.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
    Unavailable,
)
from tests.fakes import ScriptedEngine
from tests.unit.api.calls import api_of, call
from tests.unit.application.stepping import nothing_is_left
from tests.unit.application.world import CHAT, EMBEDDER, World

CHATS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "hello there"}]}
PROMPT = {"model": CHAT, "prompt": "hello there"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ROUTES = [(CHATS, HELLO), (COMPLETIONS, PROMPT)]
RESPONSE = ("/v1/responses", {"model": CHAT, "input": "hello there"})


ERRORS: list[tuple[EngineError, int, str, str | None]] = [
    (InvalidInput("seed: no", param="seed"), 400, "invalid_input", "seed"),
    (EngineLost("gone"), 503, "worker_lost", None),
    (EngineTimeout("late"), 504, "deadline_exceeded", None),
    (EngineError("odd"), 500, "engine_error", None),
]  # fmt: skip


@pytest.mark.parametrize(("error", "status", "code", "param"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_what_the_engine_refuses_is_an_error_of_its_kind(
    error: EngineError,
    status: int,
    code: str,
    param: str | None,
    stream: bool,
    path: str,
    body: dict[str, Any],
) -> None:
    world = World(engine=ScriptedEngine(lambda _: error))

    answer = await call(api_of(world), "POST", path, {**body, "stream": stream})

    assert answer.status == status
    assert (answer.error["code"], answer.error["param"]) == (code, param)
    assert ("retry-after" in answer.headers) is (status == 503)
    assert nothing_is_left(world)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "param"), [(*ROUTES[0], "messages"), (*ROUTES[1], "prompt")]
)
async def test_an_input_beyond_the_context_is_told_in_openais_words(
    stream: bool, path: str, body: dict[str, Any], param: str
) -> None:
    world = World(engine=ScriptedEngine(lambda _: ContextLengthExceeded("5000 tokens")))

    answer = await call(api_of(world), "POST", path, {**body, "stream": stream})

    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert answer.error["param"] == param
    assert answer.error["message"].startswith("This model's maximum context length is 4096 tokens.")


FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "nonsense"}}}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"response_format": FORM}, "response_format"),
        ({"guided_grammar": "root ::= ((("}, "guided_grammar"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [InvalidInput("cannot", param="structured_outputs"), InvalidInput("failed to parse grammar")],
)
async def test_a_form_that_the_engine_cannot_apply_is_told_by_its_parameter(
    error: InvalidInput, asked: dict[str, Any], param: str
) -> None:
    world = World(engine=ScriptedEngine(lambda _: error))

    answer = await call(api_of(world), "POST", CHATS, {**HELLO, **asked})

    assert (answer.status, answer.error["param"]) == (400, param)
    assert answer.error["message"].startswith(f"{param}: ")


async def test_a_worker_that_stays_away_is_a_503_to_be_tried_again() -> None:
    world = World(engine=ScriptedEngine(lambda _: EngineUnavailable("down")))

    answer = await call(
        api_of(world), "POST", CHATS, HELLO, headers={"x-stainless-read-timeout": "0.2"}
    )

    assert answer.status == 503
    assert answer.error["type"] == "server_error"
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_full_model_refuses_at_once() -> None:
    world = World()

    async def full(*_: object) -> None:
        raise Unavailable("too much is under way", retry_after_s=7, code="engine_overloaded")

    world.slots.enter = full
    answer = await call(api_of(world), "POST", CHATS, {**HELLO, "stream": True})

    assert (answer.status, answer.error["code"]) == (503, "engine_overloaded")
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        (CHATS, {**HELLO, "model": "gpt-9"}, 404, "model", "model_not_found"),
        (CHATS, {**HELLO, "model": EMBEDDER}, 400, "model", "invalid_value"),
        (CHATS, {**HELLO, "model": "echo"}, 400, "model", "invalid_value"),
        (CHATS, {**HELLO, "max_tokens": 9999}, 400, "max_tokens", "invalid_value"),
        (
            CHATS,
            {**HELLO, "max_completion_tokens": 9999},
            400,
            "max_completion_tokens",
            "invalid_value",
        ),
        (COMPLETIONS, {**PROMPT, "max_tokens": 9999}, 400, "max_tokens", "invalid_value"),
        (CHATS, {**HELLO, "tools": [TOOL]}, 400, "tools", "unsupported_parameter"),
        (CHATS, {**HELLO, "suffix": "x"}, 400, "suffix", "unknown_parameter"),
        (COMPLETIONS, {**PROMPT, "suffix": "x"}, 400, "suffix", "unsupported_parameter"),
        (COMPLETIONS, {**PROMPT, "prompt": "x" * 2**21}, 413, "prompt", "payload_too_large"),
        (CHATS, {**HELLO, "max_tokens": 5, "min_tokens": 6}, 400, "min_tokens", "invalid_value"),
        (CHATS, {**HELLO, "min_tokens": 10_000}, 400, "min_tokens", "invalid_value"),
        (COMPLETIONS, {**PROMPT, "min_tokens": 17}, 400, "min_tokens", "invalid_value"),
        (COMPLETIONS, "{", 400, None, "invalid_json"),
        (CHATS, "[]", 400, None, "invalid_json"),
        (CHATS, None, 400, None, "missing_required_parameter"),
    ],
)
async def test_a_bad_request_is_refused_and_nothing_is_asked_of_the_engine(
    path: str, body: object, status: int, param: str | None, code: str
) -> None:
    world = World()

    answer = await call(api_of(world), "POST", path, body)

    assert (answer.status, answer.error["param"], answer.error["code"]) == (status, param, code)
    assert not world.engine.calls


async def test_a_cache_header_that_is_not_understood_is_refused() -> None:
    headers = {"Synapse-Cache": "for ever"}
    answer = await call(api_of(World()), "POST", CHATS, HELLO, headers=headers)

    assert (answer.status, answer.error["param"]) == (400, "Synapse-Cache")


async def test_a_wrong_method_is_told_the_right_one() -> None:
    answer = await call(api_of(World()), "GET", CHATS)

    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 40) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        *("messages", "prompt", "n", "stop", "logit_bias", "tools", "tool_choice", "logprobs"),
        *("response_format", "structured_outputs", "stream", "stream_options", "seed", "echo"),
        *("modalities", "metadata", "service_tier", "max_tokens", "top_logprobs", "x"),
        *("input", "instructions", "include", "text", "reasoning", "truncation"),
        *("chat_template_kwargs", "reasoning_effort"),
    ]
)


@pytest.fixture(scope="module")
def api() -> Api:
    return api_of(World())


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    route=st.sampled_from([*ROUTES, RESPONSE]),
    changes=st.dictionaries(FIELDS, JSON, min_size=1, max_size=3),
)
async def test_no_body_makes_the_server_fail(
    api: Api, route: tuple[str, dict[str, Any]], changes: dict[str, Any]
) -> None:
    path, body = route

    answer = await call(api, "POST", path, {**body, **changes})

    assert answer.status == 200 or 400 <= answer.status < 500
    if answer.status != 200:
        assert answer.error["type"] == "invalid_request_error"
