"""Logging in over HTTP: small bodies, plain refusals, and nothing typed is ever shown again."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api.login import MAX_BODY_BYTES, add_login_route
from synapse.api.resolver import Api
from synapse.application.login import LocalAccounts, Login
from synapse.domain.errors import Forbidden
from synapse.domain.login_throttle import FREE_ATTEMPTS
from synapse.domain.user import WRONG, Grant, User
from tests.factories import NOW
from tests.fake_users import MemoryUserStore, PlainPasswords, PlainTokens
from tests.fakes import FakeClock
from tests.unit.api.calls import Answered

PASSWORD = "correct horse battery"
ADA = User("ada", f"1:{PASSWORD}", NOW)
RIGHT = {"username": "ada", "password": PASSWORD}


def an_api(login: Login | None) -> Api:
    services: Any = SimpleNamespace(login=login)
    api = Api()
    add_login_route(api, services)
    return api


def local() -> Login:
    return Login(LocalAccounts(MemoryUserStore(ADA), PlainPasswords(), PlainTokens()), FakeClock())


async def log_in(api: Api, body: object, address: str = "203.0.113.7") -> Answered:
    event = {
        "httpMethod": "POST",
        "path": "/api/auth/login",
        "headers": {},
        "multiValueHeaders": {},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": {},
        "requestContext": {"requestId": "req-1", "identity": {"sourceIp": address}},
        "body": body if isinstance(body, str) else json.dumps(body),
        "isBase64Encoded": False,
    }
    response = await api.answer(event, None)
    sent = {name.lower(): values[0] for name, values in response["multiValueHeaders"].items()}
    return Answered(response["statusCode"], sent, response["body"])


async def test_a_name_and_its_password_get_a_token_that_no_cache_keeps() -> None:
    answer = await log_in(an_api(local()), RIGHT)

    assert answer.status == 200
    assert answer.json == {
        "access_token": "token-of-ada-0",
        "token_type": "bearer",
        "expires_in": 60,
    }
    assert answer.headers["cache-control"] == "no-store"


async def test_a_wrong_password_and_a_wrong_name_are_the_same_401() -> None:
    api = an_api(local())

    answers = [
        await log_in(api, {"username": name, "password": password})
        for name, password in (("ada", "wrong"), ("eve", PASSWORD), ("e ve", "wrong"))
    ]

    assert {answer.status for answer in answers} == {401}
    assert {answer.text for answer in answers} == {answers[0].text}
    assert answers[0].error["message"] == WRONG


async def test_too_many_failures_are_told_when_to_come_again_each_address_by_itself() -> None:
    api = an_api(local())
    for _ in range(FREE_ATTEMPTS):
        await log_in(api, {**RIGHT, "password": "wrong"})

    refused = await log_in(api, RIGHT)
    elsewhere = await log_in(api, RIGHT, "198.51.100.9")

    assert refused.status == 429
    assert refused.headers["retry-after"] == "10"
    assert refused.error["code"] == "too_many_logins"
    assert elsewhere.status == 200


async def test_where_nobody_logs_in_the_route_says_so() -> None:
    answer = await log_in(an_api(None), RIGHT)

    assert answer.status == 404
    assert answer.error["code"] == "login_not_offered"


async def test_a_password_that_must_be_changed_first_is_told_of() -> None:
    class Challenging:
        async def sign_in(self, username: str, password: str) -> Grant:
            raise Forbidden("choose another password first", code="login_challenge")

    answer = await log_in(an_api(Login(Challenging(), FakeClock())), RIGHT)

    assert (answer.status, answer.error["code"]) == (403, "login_challenge")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"username": "ada"}, "password"),
        ({"password": PASSWORD}, "username"),
        ({**RIGHT, "username": ""}, "username"),
        ({**RIGHT, "username": "a" * 257}, "username"),
        ({**RIGHT, "password": "p" * 1025}, "password"),
        ({**RIGHT, "password": 7}, "password"),
        ({**RIGHT, "otp": "1"}, "otp"),
        ("", None),
        ("[]", None),
        ("null", None),
        ("username=ada&password=x", None),
        ("[" * 5000, None),
        ('{"username": "ada", "password": "\\ud800"}', None),
    ],
    ids=range(13),
)
async def test_a_body_of_another_form_is_refused(body: object, param: str | None) -> None:
    answer = await log_in(an_api(local()), body)

    assert (answer.status, answer.error["param"]) == (400, param)


async def test_a_body_that_is_too_large_is_not_read() -> None:
    answer = await log_in(an_api(local()), {**RIGHT, "password": "p" * MAX_BODY_BYTES})

    assert answer.status == 413


async def test_the_longest_password_fits_however_it_is_written() -> None:
    longest = "🐴" * 1024

    answer = await log_in(an_api(local()), {"username": "ada", "password": longest})

    assert answer.status == 401


@given(
    st.text(max_size=300)
    | st.dictionaries(
        st.sampled_from(["username", "password", "x"]),
        st.text(max_size=30) | st.none() | st.integers() | st.lists(st.text(max_size=3)),
    ).map(json.dumps)
)
async def test_whatever_is_sent_is_answered_in_our_shape(body: str) -> None:
    answer = await log_in(an_api(local()), body)

    assert answer.status in (400, 401)
    assert answer.error["message"]


async def test_neither_answers_nor_logs_show_what_was_typed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = "hunter2-hunter2"
    bodies: list[object] = [
        {"username": secret, "password": secret},
        {"username": "ada", "password": [secret]},
        f'{{"username": "ada", "password": "{secret}"',
        {"username": "ada", "password": secret * 100},
        {"username": "ada", "password": secret, "again": secret},
    ]
    with caplog.at_level(logging.DEBUG):
        answers = [await log_in(an_api(local()), body) for body in bodies]

    assert [answer.status for answer in answers] == [401, 400, 400, 400, 400]
    assert secret not in caplog.text
    assert not any(secret in answer.text for answer in answers)
