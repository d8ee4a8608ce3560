"""What the claims of a token come to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.access import Scope
from synapse.domain.job import SlaTier
from synapse.domain.token_claims import (
    LEEWAY_S,
    ClaimsRefused,
    good_until,
    principal_of,
)
from tests.factories import NOW
from tests.tokens import AUDIENCE, RULES, a_claim_set

COGNITO = replace(RULES, audiences=frozenset({"client-1"}))


def test_a_token_with_more_models_than_can_be_told_is_refused() -> None:
    names = [f"model-{number}" for number in range(400)]

    with pytest.raises(ClaimsRefused, match="too many models"):
        principal_of(a_claim_set(models=names), RULES)


def test_a_token_holds_until_it_expires_and_what_clocks_may_be_off() -> None:
    claims = a_claim_set(exp=NOW)

    assert good_until(claims, RULES, NOW) == NOW + LEEWAY_S
    assert good_until(claims, RULES, NOW + LEEWAY_S - 0.1) == NOW + LEEWAY_S
    with pytest.raises(ClaimsRefused, match="expired"):
        good_until(claims, RULES, NOW + LEEWAY_S)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://id.example/"},
        {"iss": None},
        {"iss": ["https://id.example"]},
        {"aud": "another"},
        {"aud": None},
        {"aud": []},
        {"aud": [AUDIENCE, 7]},
        {"aud": {"synapse-api": True}},
        {"aud": None, "client_id": AUDIENCE},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": math.inf},
        {"exp": math.nan},
        {"exp": 10**400},
        {"exp": NOW - LEEWAY_S},
        {"nbf": NOW + LEEWAY_S + 1},
        {"nbf": "now"},
        {"iat": NOW + LEEWAY_S + 1},
        {"token_use": "refresh"},
        {"token_use": 1},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_us_or_not_now_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ClaimsRefused):
        good_until(a_claim_set(**changes), RULES, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [AUDIENCE, "another"]},
        {"nbf": NOW + LEEWAY_S},
        {"iat": None},
    ],
    ids=str,
)
def test_a_token_that_is_for_others_too_or_nearly_begun_is_good(changes: dict[str, Any]) -> None:
    assert good_until(a_claim_set(**changes), RULES, NOW) > NOW


def test_a_cognito_access_token_names_its_client_and_an_id_token_its_audience() -> None:
    access = a_claim_set(token_use="access", aud=None, client_id="client-1")
    identity = a_claim_set(token_use="id", aud="client-1")

    assert good_until(access, COGNITO, NOW) > NOW
    assert good_until(identity, COGNITO, NOW) > NOW


@pytest.mark.parametrize(
    "changes",
    [
        {"token_use": "access", "aud": None, "client_id": "client-2"},
        {"token_use": "access", "aud": None},
        {"token_use": "access", "aud": "another", "client_id": "client-1"},
        {"token_use": "id", "aud": None, "client_id": "client-1"},
    ],
    ids=str,
)
def test_another_client_s_cognito_token_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ClaimsRefused):
        good_until(a_claim_set(**changes), COGNITO, NOW)


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "openid synapse/inference batches"}, {Scope.INFERENCE, Scope.BATCHES}),
        ({"scope": None, "scp": ["usage", "other"]}, {Scope.USAGE}),
        ({"scope": None, "scp": "synapse/usage synapse/admin"}, {Scope.USAGE, Scope.ADMIN}),
        ({"scope": None, "cognito:groups": ["synapse/admin"]}, {Scope.ADMIN}),
        ({"scope": None, "cognito:groups": ["admin", "inference"]}, {Scope.INFERENCE}),
        ({"scope": "usage", "cognito:groups": ["batches"]}, {Scope.USAGE, Scope.BATCHES}),
        ({"scope": "synapse/ INFERENCE synapse/everything"}, set()),
        ({"scope": None}, set()),
    ],
    # Several processes must agree on the names of tests, whatever order their sets have.
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
def test_scopes_are_those_of_ours_that_any_claim_names(
    claims: dict[str, Any], scopes: set[Scope]
) -> None:
    assert principal_of(a_claim_set(**claims), RULES).scopes == scopes


def test_the_bearer_is_the_subject_of_its_tenant() -> None:
    principal = principal_of(a_claim_set(models=["echo"], tiers="gold, silver"), RULES)

    assert (principal.tenant, principal.account) == ("acme", "user-1")
    assert principal.models == frozenset({"echo"})
    assert principal.tiers == frozenset({SlaTier.GOLD, SlaTier.SILVER})


def test_without_models_and_tiers_there_is_no_bound_and_with_none_there_is_nothing() -> None:
    unbound = principal_of(a_claim_set(), RULES)
    nothing = principal_of(a_claim_set(models=[], tiers=""), RULES)

    assert unbound.models is None
    assert unbound.tiers is None
    assert nothing.models == frozenset()
    assert nothing.tiers == frozenset()


def test_the_tenant_may_be_in_a_custom_claim_of_cognito_s() -> None:
    claims = a_claim_set(tenant=None) | {"custom:tenant": "acme"}

    assert principal_of(claims, RULES).tenant == "acme"


def test_the_tenant_s_claim_may_be_called_otherwise() -> None:
    rules = replace(RULES, tenant_claim="https://example/org")

    assert principal_of(a_claim_set() | {"https://example/org": "umbrella"}, rules).tenant == (
        "umbrella"
    )


def test_a_token_without_a_tenant_is_refused_unless_there_is_a_default() -> None:
    claims = a_claim_set(tenant=None)

    with pytest.raises(ClaimsRefused, match="tenant"):
        principal_of(claims, RULES)
    assert principal_of(claims, replace(RULES, default_tenant="guests")).tenant == "guests"


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": ""},
        {"tenant": " acme"},
        {"tenant": "a\ncme"},
        {"tenant": "a" * 65},
        {"tenant": "acme#keys"},
        {"tenant": "-acme"},
        {"tenant": ["acme"]},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\x00"},
        {"sub": "a" * 129},
        {"tiers": ["platinum"]},
        {"tiers": 3},
        {"models": {"echo": True}},
        {"models": [1]},
        {"scope": 5},
        {"scp": [None]},
    ],
    ids=str,
)
def test_a_malformed_claim_is_refused_even_with_a_default(changes: dict[str, Any]) -> None:
    with pytest.raises(ClaimsRefused):
        principal_of(a_claim_set(**changes), replace(RULES, default_tenant="guests"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = ("iss", "aud", "exp", "nbf", "iat", "sub", "tenant", "scope", "scp", "models", "tiers")


@given(st.dictionaries(st.sampled_from([*NAMES, "token_use", "client_id"]), json_values))
def test_whatever_a_token_says_it_is_refused_or_makes_a_principal(changes: dict[str, Any]) -> None:
    claims = {**a_claim_set(), **changes}
    try:
        until, principal = good_until(claims, RULES, NOW), principal_of(claims, RULES)
    except ClaimsRefused:
        return
    assert NOW < until < math.inf
    assert principal.tenant.isprintable() and principal.account.isprintable()
    assert Scope.ADMIN not in principal.scopes or "admin" in str(claims)


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_no_token_outlives_its_end(exp: float, now: float) -> None:
    claims = a_claim_set(exp=exp, iat=None)
    if now >= exp + LEEWAY_S:
        with pytest.raises(ClaimsRefused):
            good_until(claims, RULES, now)
    else:
        assert good_until(claims, RULES, now) == exp + LEEWAY_S
