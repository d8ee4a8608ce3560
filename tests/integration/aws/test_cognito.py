"""Signing in to a user pool that is made from the template's own properties."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from tests.aws import REGION
from tests.infra.translation import ROOT, read

if TYPE_CHECKING:
    from mypy_boto3_cognito_idp.client import CognitoIdentityProviderClient

PASSWORD = "Correct-horse-1"
PROPERTIES = ("Schema", "UsernameConfiguration", "AdminCreateUserConfig", "Policies")


@dataclass(frozen=True)
class Pool:
    """A user pool, its client for signing in, and what administers it."""

    admin: CognitoIdentityProviderClient
    accounts: CognitoAccounts
    id: str
    client_id: str

    @property
    def issuer(self) -> str:
        return f"https://cognito-idp.{REGION}.amazonaws.com/{self.id}"

    def add(self, name: str, *groups: str, permanent: bool = True) -> None:
        attributes = [
            {"Name": "email", "Value": f"{name}@example.com"},
            {"Name": "custom:tenant", "Value": "acme"},
        ]
        self.admin.admin_create_user(
            UserPoolId=self.id,
            Username=name,
            TemporaryPassword=PASSWORD,
            UserAttributes=attributes,  # type: ignore[arg-type]
        )
        if permanent:
            self.admin.admin_set_user_password(
                UserPoolId=self.id, Username=name, Password=PASSWORD, Permanent=True
            )
        for group in groups:
            self.admin.create_group(UserPoolId=self.id, GroupName=group)
            self.admin.admin_add_user_to_group(UserPoolId=self.id, Username=name, GroupName=group)


@pytest.fixture
def pool() -> Iterator[Pool]:
    resources = read(ROOT / "infra" / "users.yaml")["Resources"]
    properties = resources["Pool"]["Properties"]
    client = {
        name: value
        for name, value in resources["Client"]["Properties"].items()
        if name not in ("UserPoolId", "ClientName")
    }
    with mock_aws():
        admin = boto3.client("cognito-idp", REGION)
        made: Any = admin.create_user_pool(
            PoolName="users", **{name: properties[name] for name in PROPERTIES}
        )
        pool_id = made["UserPool"]["Id"]
        app = admin.create_user_pool_client(UserPoolId=pool_id, ClientName="login", **client)
        client_id = app["UserPoolClient"]["ClientId"]
        anybody = boto3.client("cognito-idp", REGION, config=ANYBODYS)
        yield Pool(admin, CognitoAccounts(anybody, client_id), pool_id, client_id)


def published_keys(url: str) -> dict[str, Any]:
    """The keys that the emulator signs with; it serves them to no urllib."""
    document: dict[str, Any] = load_resource("cognitoidp/resources/jwks-public.json")
    return document


def a_verifier(pool: Pool) -> JwtVerifier:
    rules = TokenRules(pool.issuer, frozenset({pool.client_id}))
    keys = IssuerKeys(pool.issuer, f"{pool.issuer}/keys", time.time, published_keys)
    return JwtVerifier(rules, keys, time.time)


async def test_who_signs_in_gets_a_token_that_says_tenant_and_scopes(pool: Pool) -> None:
    pool.add("ada", "synapse/inference", "admin")

    grant = await pool.accounts.sign_in("ada", PASSWORD)
    principal = await a_verifier(pool).verify(grant.access_token)

    assert principal == Principal("acme", principal.account, frozenset({Scope.INFERENCE}))
    assert principal.account not in ("", "ada")
    assert grant.expires_in_s == 3600


async def test_an_access_token_without_a_tenant_is_refused(pool: Pool) -> None:
    pool.add("ada")
    answer = pool.admin.initiate_auth(
        AuthFlow="USER_PASSWORD_AUTH",
        ClientId=pool.client_id,
        AuthParameters={"USERNAME": "ada", "PASSWORD": PASSWORD},
    )

    with pytest.raises(Unauthenticated):
        await a_verifier(pool).verify(answer["AuthenticationResult"]["AccessToken"])


@pytest.mark.parametrize(
    ("name", "password"),
    [("ada", "Wrong-horse-1"), ("nobody", PASSWORD), ("no body", PASSWORD), ("ada", ""), ("", "")],
)
async def test_nothing_tells_a_wrong_name_from_a_wrong_password(
    pool: Pool, name: str, password: str
) -> None:
    pool.add("ada")

    with pytest.raises(Unauthenticated) as caught:
        await pool.accounts.sign_in(name, password)

    assert caught.value.message == WRONG


async def test_a_disabled_user_is_refused(pool: Pool) -> None:
    pool.add("ada")
    pool.admin.admin_disable_user(UserPoolId=pool.id, Username="ada")

    with pytest.raises(Unauthenticated):
        await pool.accounts.sign_in("ada", PASSWORD)


async def test_a_temporary_password_has_to_be_changed_first(pool: Pool) -> None:
    pool.add("ada", permanent=False)

    with pytest.raises(Forbidden, match="temporary") as caught:
        await pool.accounts.sign_in("ada", PASSWORD)

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
