"""Signing in to a user pool that is made from the template's own properties."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.utilities.utils import load_resource

from synapse.adapters.aws.cognito import ANYBODYS, CognitoAccounts
from synapse.adapters.tokens.jwks import IssuerKeys
from synapse.adapters.tokens.verifier import JwtVerifier
from synapse.domain.access import Principal, Scope
from synapse.domain.errors import Forbidden, LimitReached, Unauthenticated, Unavailable
from synapse.domain.token_claims import TokenRules
from synapse.domain.user import WRONG
from tests.user_pool import PASSWORD, REGION, UserPool, new_pool


@dataclass(frozen=True)
class Door:
    """A pool, and what signs people in to it."""

    pool: UserPool
    accounts: CognitoAccounts


@pytest.fixture
def door() -> Iterator[Door]:
    with mock_aws():
        pool = new_pool(boto3.client("cognito-idp", REGION))
        anybody = boto3.client("cognito-idp", REGION, config=ANYBODYS)
        yield Door(pool, CognitoAccounts(anybody, pool.client_id))


def published_keys(url: str) -> dict[str, Any]:
    """The keys that the emulator signs with; it serves them to no urllib."""
    document: dict[str, Any] = load_resource("cognitoidp/resources/jwks-public.json")
    return document


def a_verifier(pool: UserPool) -> JwtVerifier:
    rules = TokenRules(pool.issuer, frozenset({pool.client_id}))
    keys = IssuerKeys(pool.issuer, f"{pool.issuer}/keys", time.time, published_keys)
    return JwtVerifier(rules, keys, time.time)


async def test_who_signs_in_gets_a_token_that_says_tenant_and_scopes(door: Door) -> None:
    door.pool.add("ada", "acme", "synapse/inference", "admin")

    grant = await door.accounts.sign_in("ada", PASSWORD)
    principal = await a_verifier(door.pool).verify(grant.access_token)

    assert principal == Principal("acme", principal.account, frozenset({Scope.INFERENCE}))
    assert principal.account not in ("", "ada")
    assert grant.expires_in_s == 3600


async def test_an_access_token_without_a_tenant_is_refused(door: Door) -> None:
    door.pool.add("ada", "acme")
    answer = door.pool.cognito.initiate_auth(
        AuthFlow="USER_PASSWORD_AUTH",
        ClientId=door.pool.client_id,
        AuthParameters={"USERNAME": "ada", "PASSWORD": PASSWORD},
    )

    with pytest.raises(Unauthenticated):
        await a_verifier(door.pool).verify(answer["AuthenticationResult"]["AccessToken"])


@pytest.mark.parametrize(
    ("name", "password"),
    [("ada", "Wrong-horse-1"), ("nobody", PASSWORD), ("no body", PASSWORD), ("ada", ""), ("", "")],
)
async def test_nothing_tells_a_wrong_name_from_a_wrong_password(
    door: Door, name: str, password: str
) -> None:
    door.pool.add("ada", "acme")

    with pytest.raises(Unauthenticated) as caught:
        await door.accounts.sign_in(name, password)

    assert caught.value.message == WRONG


async def test_a_disabled_user_is_refused(door: Door) -> None:
    door.pool.add("ada", "acme")
    door.pool.cognito.admin_disable_user(UserPoolId=door.pool.id, Username="ada")

    with pytest.raises(Unauthenticated):
        await door.accounts.sign_in("ada", PASSWORD)


async def test_a_temporary_password_has_to_be_changed_first(door: Door) -> None:
    door.pool.add("ada", "acme", permanent=False)

    with pytest.raises(Forbidden, match="temporary") as caught:
        await door.accounts.sign_in("ada", PASSWORD)

    assert caught.value.code == "login_challenge"


class Refusing:
    """A pool that answers with an error, or asks for something else."""

    def __init__(self, code: str = "", answer: dict[str, Any] | None = None) -> None:
        self._code = code
        self._answer = answer

    def initiate_auth(self, **_: object) -> dict[str, Any]:
        if self._answer is not None:
            return self._answer
        error = {"Code": self._code, "Message": f"ada {PASSWORD}"}
        raise ClientError(
            {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 400}},  # type: ignore[typeddict-item]
            "InitiateAuth",
        )


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        ("TooManyRequestsException", LimitReached, "too_many_logins"),
        ("LimitExceededException", Unavailable, "service_unavailable"),
        ("InternalErrorException", Unavailable, "service_unavailable"),
        ("ResourceNotFoundException", Unavailable, "service_unavailable"),
        ("InvalidParameterException", Unauthenticated, "invalid_api_key"),
        ("PasswordResetRequiredException", Forbidden, "password_reset_required"),
        ("UserNotConfirmedException", Forbidden, "account_not_confirmed"),
    ],
)
async def test_each_refusal_of_cognito_s_has_its_answer_and_no_secret_is_logged(
    code: str, error: type[Exception], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    client: Any = Refusing(code)

    with caplog.at_level(logging.DEBUG), pytest.raises(error) as caught:
        await CognitoAccounts(client, "client-1").sign_in("ada", PASSWORD)

    assert getattr(caught.value, "code", None) == told
    assert PASSWORD not in caplog.text + str(caught.value)


@pytest.mark.parametrize("challenge", ["SMS_MFA", "SOFTWARE_TOKEN_MFA", "MFA_SETUP", "EMAIL_OTP"])
async def test_a_second_factor_is_told_of(challenge: str) -> None:
    client: Any = Refusing(answer={"ChallengeName": challenge, "ChallengeParameters": {}})

    with pytest.raises(Forbidden, match=challenge):
        await CognitoAccounts(client, "client-1").sign_in("ada", PASSWORD)
