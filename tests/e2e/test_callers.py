"""Who gets in at the deployed door, and what of others' they find there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from synapse.domain.access import Scope
from tests.e2e.stack import RevokedKey, Stack, new_key_text
from tests.e2e.test_refusals import GOOD, error_of

ROUTES = [
    ("POST", "/async-infer"),
    ("POST", "/infer"),
    ("GET", "/results/0f8fad5bd9cb469fa16570867728950e"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/files"),
    ("GET", "/metrics"),
    ("GET", "/api/admin/keys"),
]
ALL = frozenset(Scope)


def revoked_before_use(stack: Stack) -> str:
    text = stack.new_key(scopes=ALL)
    stack.change_key(text, revoked_at=time.time() - 1)
    return text


def with_another_secret(stack: Stack) -> str:
    text = stack.new_key(scopes=ALL)
    return text[:-1] + ("a" if text[-1] != "a" else "b")


NO_GOOD: dict[str, Callable[[Stack], str | None]] = {
    "none": lambda stack: None,
    "too short": lambda stack: "short",
    "no key": lambda stack: "as-long-as-a-key-and-yet-none",
    "unknown": lambda stack: new_key_text(),
    "wrong secret": with_another_secret,
    "expired": lambda stack: stack.new_key(scopes=ALL, expires_at=time.time() - 1),
    "revoked": revoked_before_use,
    "a token of nobody": lambda stack: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.",
}


@pytest.fixture(scope="module")
def refused_keys(stack: Stack) -> dict[str, str | None]:
    return {name: make(stack) for name, make in NO_GOOD.items()}


# All faults of a credential on one route, and one fault on all. Every route with every fault is in
# tests/unit/api/test_every_route.py.
@pytest.mark.parametrize(
    ("method", "path", "name"),
    [*(("GET", "/v1/models", name) for name in NO_GOOD), *((*each, "unknown") for each in ROUTES)],
)
def test_nobody_gets_in_without_a_good_credential_and_all_are_told_the_same(
    stack: Stack, refused_keys: dict[str, str | None], method: str, path: str, name: str
) -> None:
    body = GOOD if method == "POST" else None

    answer = stack.call(method, path, body, api_key=refused_keys[name])

    assert answer.status == 401, answer.body
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert error_of(answer) == error_of(stack.call("GET", "/v1/models", api_key=None))


def test_a_key_in_another_header_or_scheme_is_no_key(stack: Stack) -> None:
    for headers in (
        {"x-api-key": stack.api_key},
        {"Authorization": stack.api_key},
        {"Authorization": f"Basic {stack.api_key}"},
    ):
        answer = stack.call("GET", "/v1/models", api_key=None, headers=headers)
        assert answer.status == 401, headers


def test_nobody_is_who_he_says_he_is_in_a_header(stack: Stack) -> None:
    """What the authorizer hands on comes from the authorizer alone."""
    text = stack.new_key(scopes=frozenset({Scope.INFERENCE}))
    claim = json.dumps({"tenant": "default", "account": "me", "scopes": ["admin"]})
    headers = {"x-amzn-request-context": json.dumps({"authorizer": {"principal": claim}})}

    answer = stack.call("GET", "/metrics", api_key=text, headers=headers)

    assert answer.status == 403, answer.body


def test_a_key_that_is_revoked_after_its_use_opens_nothing_a_minute_later(
    stack: Stack, revoked: RevokedKey
) -> None:
    """The emulator keeps what the authorizer said as long as the template says, like AWS."""
    time.sleep(max(0.0, revoked.used_at + 61 - time.monotonic()))

    assert stack.call("GET", "/v1/models", api_key=revoked.text).status == 401


def test_a_scope_that_is_lacking_is_named(stack: Stack) -> None:
    text = stack.new_key(scopes=frozenset({Scope.INFERENCE}))

    assert stack.call("GET", "/v1/models", api_key=text).status == 200
    answer = stack.call("GET", "/metrics", api_key=text)

    assert answer.status == 403
    assert error_of(answer)["code"] == "insufficient_scope"


def test_a_model_that_is_not_the_keys_is_not_there(stack: Stack) -> None:
    text = stack.new_key(models=frozenset({"echo"}))
    other = {**GOOD, "model": "smollm2-135m-instruct"}

    assert stack.call("POST", "/async-infer", GOOD, api_key=text).status == 202
    listed = stack.call("GET", "/v1/models", api_key=text).json()["data"]
    answer = stack.call("POST", "/async-infer", other, api_key=text)

    assert [model["id"] for model in listed] == ["echo"]
    assert (answer.status, error_of(answer)["code"]) == (404, "model_not_found")


def test_another_tenants_job_is_as_unknown_as_one_that_never_was(stack: Stack) -> None:
    ours, theirs = stack.new_key("ours"), stack.new_key("theirs")
    job_id = stack.call("POST", "/async-infer", GOOD, api_key=ours).json()["jobId"]
    nobodys = "0f8fad5bd9cb469fa16570867728950e"

    for method in ("GET", "DELETE"):
        foreign = stack.call(method, f"/results/{job_id}", api_key=theirs)
        unknown = stack.call(method, f"/results/{nobodys}", api_key=theirs)
        assert foreign.status == unknown.status == 404
        assert without_id(foreign.body, job_id) == without_id(unknown.body, nobodys)
    assert stack.call("GET", f"/results/{job_id}", api_key=ours).status == 200


def without_id(body: bytes, job_id: str) -> str:
    return body.decode().replace(job_id, "…")


@pytest.mark.parametrize(
    "path",
    ["/health", "/openapi.json", "/api/docs", "/api/redoc", "/api/static/redoc.standalone.js"],
)
def test_what_tells_nothing_of_jobs_is_open(stack: Stack, path: str) -> None:
    assert stack.call("GET", path, api_key=None).status == 200


def test_strangers_are_told_of_health_nothing_but_a_word(stack: Stack) -> None:
    assert set(stack.call("GET", "/health", api_key=None).json()) == {"status"}
    assert set(stack.call("GET", "/health").json()) == {"status", "version", "workers", "detail"}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/echo", "/metrics"])
def test_the_rest_answers_with_a_key(stack: Stack, path: str) -> None:
    assert stack.call("GET", path).status == 200
