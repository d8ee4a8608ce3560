"""The function that API Gateway asks whose key or token a request carries."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from functions.authorize import handler as authorize
from synapse.adapters.principal_records import principal_from_json
from synapse.api.gate import CONTEXT_KEY, from_authorizer
from synapse.application.authentication import Authenticator
from synapse.domain.access import ALL_SCOPES, Limits, Principal, Tenant, are_too_many
from synapse.domain.api_key import ApiKey, digest
from synapse.domain.errors import Unavailable
from synapse.domain.job import SlaTier
from synapse.domain.token_claims import MAX_SUBJECT_CHARS
from tests.factories import NOW
from tests.fake_keys import MemoryKeyStore
from tests.fakes import FakeClock
from tests.lambda_context import a_context

ARN = "arn:aws:execute-api:us-east-1:123456789012:abcdef1234/dev"
CONTEXT = a_context("authorize")
SECRET = "S" * 43
TEXT = f"sk-syn-key000000001{SECRET}"
KEY = ApiKey("key000000001", "acme", "a laptop", digest(TEXT), NOW)


def asked(monkeypatch: pytest.MonkeyPatch, key: ApiKey, header: str, route: str = "GET/x") -> Any:
    authenticator = Authenticator(MemoryKeyStore(key), FakeClock())
    monkeypatch.setattr(authorize, "authenticator", lambda: authenticator)
    event = {"type": "TOKEN", "authorizationToken": header, "methodArn": f"{ARN}/{route}"}
    return authorize.handler(event, CONTEXT)


@pytest.mark.parametrize("header", [f"Bearer {TEXT}", f"bearer   {TEXT}", f"BEARER {TEXT} "])
def test_the_bearer_of_a_good_key_is_let_in(monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    answer = asked(monkeypatch, KEY, header)

    assert answer["policyDocument"]["Statement"][0]["Effect"] == "Allow"


def test_the_answer_is_good_for_every_route_because_api_gateway_keeps_it_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = asked(monkeypatch, KEY, f"Bearer {TEXT}", "GET/v1/models")
    other = asked(monkeypatch, KEY, f"Bearer {TEXT}", "POST/async-infer")

    assert one == other
    assert one["policyDocument"]["Statement"][0]["Resource"] == f"{ARN}/*"


async def test_the_api_finds_the_caller_in_what_is_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = replace(KEY, models=frozenset({"echo"}), limits=Limits(requests_per_minute=3))
    answer = asked_off_the_loop(monkeypatch, key)

    # API Gateway hands on texts, numbers and truths; anything else fails the request.
    assert all(isinstance(value, str) for value in answer["context"].values())
    event = {"requestContext": {"authorizer": answer["context"]}}
    assert await from_authorizer(event) == key.principal(Tenant("acme"))
    assert principal_from_json(answer["context"][CONTEXT_KEY]).tenant == "acme"


def asked_off_the_loop(monkeypatch: pytest.MonkeyPatch, key: ApiKey) -> Any:
    """The function has a loop of its own, which cannot run in a test's."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asked, monkeypatch, key, f"Bearer {TEXT}").result()


@pytest.mark.parametrize(
    ("key", "header"),
    [
        (replace(KEY, revoked_at=NOW), f"Bearer {TEXT}"),
        (replace(KEY, expires_at=NOW), f"Bearer {TEXT}"),
        (replace(KEY, id="key000000002"), f"Bearer {TEXT}"),
        (KEY, f"Bearer sk-syn-key000000001{'T' * 43}"),
        (KEY, "Bearer not-a-key"),
        (KEY, "Bearer "),
        (KEY, TEXT),
    ],
    ids=["revoked", "expired", "unknown", "wrong secret", "no key", "nothing", "no scheme"],
)
def test_all_others_are_unauthorized_in_the_word_that_api_gateway_answers_401_to(
    monkeypatch: pytest.MonkeyPatch, key: ApiKey, header: str
) -> None:
    with pytest.raises(authorize.Unauthorized) as refused:
        asked(monkeypatch, key, header)

    assert str(refused.value) == "Unauthorized"


def test_a_store_that_does_not_answer_refuses_nobody_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away(MemoryKeyStore):
        async def get(self, key_id: str) -> ApiKey | None:
            raise Unavailable("the table does not answer")

    monkeypatch.setattr(authorize, "authenticator", lambda: Authenticator(Away(), FakeClock()))
    event = {"type": "TOKEN", "authorizationToken": f"Bearer {TEXT}", "methodArn": f"{ARN}/GET/x"}

    with pytest.raises(Unavailable):
        authorize.handler(event, CONTEXT)


EVERY_LIMIT = Limits(10**12, 10**12, 10**12, 10**12, 999_999_999_999.99)
NAMES = st.lists(st.text(st.characters(codec="utf-8"), max_size=80), max_size=400)


@given(NAMES, st.text(st.characters(codec="utf-8", min_codepoint=0x10000), max_size=128))
@example([f"m{number}" for number in range(700)], "key000000001")
@example(["\\" * 5 + str(number) for number in range(700)], "\U0001f600" * MAX_SUBJECT_CHARS)
@settings(max_examples=50, deadline=None)
def test_what_any_caller_may_do_is_short_enough_to_tell(names: list[str], account: str) -> None:
    models = sorted(frozenset(names))
    while are_too_many(models):
        models.pop()
    caller = Principal(
        "t" * 64,
        account,
        ALL_SCOPES,
        frozenset(models),
        frozenset(SlaTier),
        EVERY_LIMIT,
        EVERY_LIMIT,
    )

    answer = json.dumps(authorize._pass(caller, f"{ARN}/GET/x"))

    assert len(answer) <= authorize.MAX_ANSWER_BYTES


def test_a_key_of_before_that_may_do_more_than_can_be_told_is_refused_and_found_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = replace(KEY, models=frozenset(f"model-{number}" for number in range(700)))

    with pytest.raises(authorize.Unauthorized):
        asked(monkeypatch, key, f"Bearer {TEXT}")

    assert "too long to tell" in caplog.text


@pytest.mark.parametrize("key", [KEY, replace(KEY, revoked_at=NOW)], ids=["good", "revoked"])
def test_neither_the_answer_nor_the_log_has_the_secret(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    key: ApiKey,
) -> None:
    caplog.set_level(logging.DEBUG)
    try:
        told = json.dumps(asked(monkeypatch, key, f"Bearer {TEXT}"))
    except authorize.Unauthorized as refused:
        told = repr(refused)

    logged = caplog.text + "".join(capsys.readouterr())
    assert SECRET not in told
    assert SECRET not in logged
    assert (KEY.id in logged) == (key is not KEY), "a refusal is to be found in the log"


def test_its_start_loads_nothing_that_a_key_needs_not() -> None:
    heavy = ("aws_xray_sdk", "pydantic", "jwt", "cryptography", "grpc", "httpcore", "jinja2")
    code = "import sys, functions.authorize.handler; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = {module.split(".")[0] for module in run.stdout.split()}

    assert "boto3" in loaded
    assert loaded.isdisjoint(heavy)
