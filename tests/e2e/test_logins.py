"""People log in at the deployed door, and their tokens open what their groups say."""

from __future__ import annotations

import pytest

from tests.e2e.stack import Answer, Stack
from tests.e2e.test_refusals import GOOD, error_of
from tests.user_pool import PASSWORD, UserPool


def log_in(stack: Stack, name: str, password: str = PASSWORD) -> Answer:
    body = {"username": name, "password": password}
    return stack.call("POST", "/api/auth/login", body, api_key=None)


def a_token(stack: Stack, name: str) -> str:
    answer = log_in(stack, name)
    assert answer.status == 200, answer.body
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["token_type"] == "bearer"
    assert 0 < answer.json()["expires_in"] <= 3600
    return str(answer.json()["access_token"])


def test_who_logs_in_does_what_their_groups_say_for_their_tenant(
    stack: Stack, people: UserPool
) -> None:
    people.add("ada", "acme", "synapse/inference")
    people.add("bob", "umbrella", "synapse/inference")
    ada, bob = a_token(stack, "ada"), a_token(stack, "bob")

    submitted = stack.call("POST", "/async-infer", GOOD, api_key=ada)
    assert submitted.status == 202, submitted.body
    job = f"/results/{submitted.json()['jobId']}"
    assert stack.call("GET", job, api_key=ada).status == 200
    assert stack.call("GET", job, api_key=bob).status == 404
    refused = stack.call("GET", "/v1/files", api_key=ada)
    assert (refused.status, error_of(refused)["code"]) == (403, "insufficient_scope")


def test_a_token_that_was_changed_opens_nothing(stack: Stack, people: UserPool) -> None:
    people.add("carl", "acme", "synapse/inference")
    head, claims, signature = a_token(stack, "carl").split(".")

    forged = f"{head}.{claims}.{signature[:-8]}AAAAAAAA"

    assert stack.call("GET", "/v1/models", api_key=forged).status == 401


def test_nothing_tells_a_wrong_name_from_a_wrong_password(stack: Stack, people: UserPool) -> None:
    people.add("dora", "acme")

    answers = [log_in(stack, "dora", "Wrong-horse-1"), log_in(stack, "nobody")]

    assert [answer.status for answer in answers] == [401, 401]
    assert error_of(answers[0]) == error_of(answers[1])


def test_a_temporary_password_is_told_of(stack: Stack, people: UserPool) -> None:
    people.add("eve", "acme", permanent=False)

    answer = log_in(stack, "eve")

    assert (answer.status, error_of(answer)["code"]) == (403, "login_challenge")


@pytest.mark.parametrize("body", [b"{not json", {"username": "ada"}, {"username": 1}])
def test_a_body_of_another_form_is_refused(stack: Stack, body: object) -> None:
    answer = stack.call("POST", "/api/auth/login", body, api_key=None)

    assert answer.status == 400, answer.body
    assert error_of(answer)["message"]
