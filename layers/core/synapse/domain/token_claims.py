"""What a token with a good signature says: whether it is meant for us, and for whom it speaks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from synapse.domain.access import Principal, Scope, are_too_many, is_tenant_name
from synapse.domain.job import SlaTier

LEEWAY_S = 30.0
"""How far an issuer's clock may be off."""

MAX_SUBJECT_CHARS = 128

SCOPE_PREFIX = "synapse/"
GROUPS = "cognito:groups"

Claims = Mapping[str, Any]


class ClaimsRefused(Exception):
    """The token is not for us, or not now; the message says why, for the log only."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What the tokens of an issuer must say.

    `tenant_claim` names the claim with the tenant, which Cognito calls `custom:<claim>`. A token
    without it is refused, unless there is a `default_tenant`.
    """

    issuer: str
    audiences: frozenset[str]
    tenant_claim: str = "tenant"
    default_tenant: str | None = None


def good_until(claims: Claims, rules: TokenRules, now: float) -> float:
    """Until when the token holds, in seconds since the epoch.

    Raises:
        ClaimsRefused: it is another issuer's, for somebody else, or does not hold now.
    """
    if claims.get("iss") != rules.issuer:
        raise ClaimsRefused("another issuer's")
    if not rules.audiences.intersection(_audiences(claims)):
        raise ClaimsRefused("for another audience")
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise ClaimsRefused("no exp")
    if expires_at + LEEWAY_S <= now:
        raise ClaimsRefused("expired")
    for name in ("nbf", "iat"):
        begins_at = _time(claims, name)
        if begins_at is not None and begins_at - LEEWAY_S > now:
            raise ClaimsRefused(f"{name} is in the future")
    return expires_at + LEEWAY_S


def principal_of(claims: Claims, rules: TokenRules) -> Principal:
    """Whom the token speaks for. Without one of our scopes its bearer may do nothing.

    Raises:
        ClaimsRefused: a claim that we need is missing, malformed or too large.
    """
    models, tiers = _words(claims, "models"), _words(claims, "tiers")
    if are_too_many(models):
        raise ClaimsRefused("too many models")
    try:
        return Principal(
            tenant=_tenant(claims, rules),
            account=_subject(claims.get("sub")),
            scopes=frozenset(_scopes(claims)),
            models=models,
            tiers=None if tiers is None else frozenset(SlaTier(tier) for tier in tiers),
        )
    except ValueError as error:
        raise ClaimsRefused(f"tiers: {error}") from error


def _audiences(claims: Claims) -> tuple[str, ...]:
    """Whom it is for. Cognito's access tokens name their client instead of an audience."""
    use = claims.get("token_use")
    if use not in (None, "access", "id"):
        raise ClaimsRefused("neither an access token nor an ID token")
    named = claims.get("aud")
    if named is None and use == "access":
        named = claims.get("client_id")
    if isinstance(named, str):
        return (named,)
    return _strings(named, "aud")


def _time(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ClaimsRefused(f"{name} is no number")
    try:
        seconds = float(value)
    except OverflowError as error:
        raise ClaimsRefused(f"{name} is no time") from error
    if not math.isfinite(seconds):
        raise ClaimsRefused(f"{name} is no time")
    return seconds


def _tenant(claims: Claims, rules: TokenRules) -> str:
    named = _first(claims, rules.tenant_claim)
    if named is not None:
        if not isinstance(named, str) or not is_tenant_name(named):
            raise ClaimsRefused(f"{rules.tenant_claim} is no tenant's name")
        return named
    if rules.default_tenant is None:
        raise ClaimsRefused(f"no {rules.tenant_claim}")
    return rules.default_tenant


def _first(claims: Claims, name: str) -> Any:
    value = claims.get(name)
    return claims.get(f"custom:{name}") if value is None else value


def _subject(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_SUBJECT_CHARS:
        return value
    raise ClaimsRefused("sub is no name")


def _scopes(claims: Claims) -> Iterator[Scope]:
    known = {scope.value: scope for scope in Scope}
    for claim in ("scope", "scp", GROUPS):
        for word in _words(claims, claim) or ():
            scope = known.get(word.removeprefix(SCOPE_PREFIX))
            # All applications of an identity provider share its groups: one that is called
            # "admin" is not meant for us.
            is_shared = claim == GROUPS and not word.startswith(SCOPE_PREFIX)
            if scope is not None and not (is_shared and scope is Scope.ADMIN):
                yield scope


def _words(claims: Claims, name: str) -> frozenset[str] | None:
    """A claim with several values: a list, or a text with spaces or commas between them."""
    value = _first(claims, name)
    if value is None:
        return None
    if isinstance(value, str):
        return frozenset(value.replace(",", " ").split())
    return frozenset(_strings(value, name))


def _strings(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ClaimsRefused(f"{name} is neither text nor a list of texts")
    return tuple(value)
