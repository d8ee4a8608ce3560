"""A bad request raises the class that the SDK has for it, with all that it can tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import (
    APIError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
)
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.openai_sdk.target import CONTEXT_TOKENS, EMBEDDER, LLM, Target

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


def _check(error: APIStatusError) -> dict[str, Any]:
    body = error.response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)
    assert isinstance(body["error"]["code"], str)
    assert error.request_id
    told: dict[str, Any] = body["error"]
    return told


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found(client: OpenAI, stream: bool) -> None:
    with pytest.raises(NotFoundError) as failed:
        client.chat.completions.create(model="gpt-9", messages=HELLO, stream=stream)

    assert _check(failed.value)["code"] == "model_not_found"
    assert failed.value.code == "model_not_found"


def test_an_unknown_model_is_not_found_by_its_name(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as failed:
        client.models.retrieve("gpt-9")

    assert _check(failed.value)["code"] == "model_not_found"


CALLS: dict[str, tuple[Callable[[OpenAI], object], str]] = {
    "a value out of range": (
        lambda c: c.chat.completions.create(model=LLM, messages=HELLO, temperature=3),
        "temperature",
    ),
    "no message": (lambda c: c.chat.completions.create(model=LLM, messages=[]), "messages"),
    "an unknown field": (
        lambda c: c.chat.completions.create(model=LLM, messages=HELLO, extra_body={"foo": 1}),
        "foo",
    ),
    "what cannot be honoured": (
        lambda c: c.completions.create(model=LLM, prompt="x", suffix="y"),
        "suffix",
    ),
    "sound": (
        lambda c: c.chat.completions.create(model=LLM, messages=HELLO, modalities=["audio"]),
        "modalities",
    ),
    "a chat with an embedding model": (
        lambda c: c.chat.completions.create(model=EMBEDDER, messages=HELLO),
        "model",
    ),
    "an embedding by a language model": (
        lambda c: c.embeddings.create(model=LLM, input="x"),
        "model",
    ),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_bad_request_names_what_is_wrong(client: OpenAI, what: str) -> None:
    call, param = CALLS[what]
    with pytest.raises(BadRequestError) as failed:
        call(client)

    told = _check(failed.value)
    assert told["type"] == "invalid_request_error"
    assert told["param"] is not None
    assert told["param"].split(".")[0] == param
    assert failed.value.param == told["param"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_beyond_the_context_is_told_so(client: OpenAI, stream: bool) -> None:
    with pytest.raises(BadRequestError) as failed:
        client.chat.completions.create(
            model=LLM,
            messages=[{"role": "user", "content": "word " * (CONTEXT_TOKENS + 10)}],
            stream=stream,
        )

    assert _check(failed.value)["code"] == "context_length_exceeded"
    assert str(CONTEXT_TOKENS) in failed.value.message


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_is_none_is_refused(client: OpenAI, stream: bool) -> None:
    schema: dict[str, object] = {"type": "nonsense"}
    # A stream whose engine takes its time has begun by then: the refusal comes in it.
    with pytest.raises(APIError) as failed:
        answer = client.chat.completions.create(
            model=LLM,
            messages=HELLO,
            max_tokens=8,
            stream=stream,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        )
        list(answer)

    assert "schema" in failed.value.message
    if isinstance(failed.value, APIStatusError):
        assert failed.value.status_code == 400
        assert "schema" in _check(failed.value)["message"]


@pytest.mark.parametrize("body", ["{", "[]", '"x"', '{"model": NaN}', ""])
def test_a_body_that_is_no_json_object_is_refused(target: Target, body: str) -> None:
    answer = httpx.post(
        f"{target.base_url}/chat/completions",
        content=body,
        headers={"authorization": f"Bearer {target.api_key}", "content-type": "application/json"},
    )

    assert answer.status_code == 400
    assert set(json.loads(answer.text)["error"]) == {"message", "type", "param", "code"}


def test_a_route_that_is_not_there_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as failed:
        client.images.generate(prompt="a cat", model=LLM)

    assert _check(failed.value)["code"] == "route_not_found"


@pytest.mark.parametrize("wrong", ["wrong", f"sk-syn-{'0' * 55}", "a.b.c"])
def test_a_wrong_key_is_refused(target: Target, wrong: str) -> None:
    with (
        OpenAI(base_url=target.base_url, api_key=wrong, max_retries=0) as client,
        pytest.raises(AuthenticationError) as failed,
    ):
        client.models.list()

    assert set(failed.value.response.json()["error"]) == {"message", "type", "param", "code"}
