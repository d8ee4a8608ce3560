"""The identity provider whose tokens are accepted, as the settings of both targets name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse.domain.access import Principal, is_tenant_name
from synapse.domain.token_claims import TokenRules

if TYPE_CHECKING:
    from synapse.ports import Clock
    from synapse.ports.tokens import TokenVerifier

ISSUER = "SYNAPSE_OIDC_ISSUER"
AUDIENCE = "SYNAPSE_OIDC_AUDIENCE"
JWKS_URL = "SYNAPSE_OIDC_JWKS_URL"
TENANT_CLAIM = "SYNAPSE_OIDC_TENANT_CLAIM"
DEFAULT_TENANT = "SYNAPSE_OIDC_DEFAULT_TENANT"
COGNITO_CLIENT_ID = "SYNAPSE_COGNITO_CLIENT_ID"


@dataclass(frozen=True, slots=True)
class OidcIssuer:
    """An issuer, and what its tokens must say; without `jwks_url` it tells where its keys are."""

    rules: TokenRules
    jwks_url: str = ""

    def verifier(self, clock: Clock) -> TokenVerifier:
        """A verifier of its tokens; the cryptography is loaded when the first token comes."""
        return _OnDemand(self, clock)


class _OnDemand:
    """See the port `TokenVerifier`. Who sends an API key does not wait for the cryptography."""

    def __init__(self, issuer: OidcIssuer, clock: Clock) -> None:
        self._issuer = issuer
        self._clock = clock
        self._verifier: TokenVerifier | None = None

    async def verify(self, token: str) -> Principal:
        """See the port."""
        if self._verifier is None:
            from synapse.adapters.tokens.jwks import IssuerKeys
            from synapse.adapters.tokens.verifier import JwtVerifier

            rules = self._issuer.rules
            keys = IssuerKeys(rules.issuer, self._issuer.jwks_url, self._clock)
            self._verifier = JwtVerifier(rules, keys, self._clock)
        return await self._verifier.verify(token)


def oidc_issuer(environ: Mapping[str, str]) -> OidcIssuer | None:
    """The issuer that these settings name, if any.

    Raises:
        ValueError: a setting is missing or malformed; the message names it.
    """
    issuer = environ.get(ISSUER, "").strip()
    if not issuer:
        return None
    # Loading this takes longer than the rest of a command that has no issuer.
    from synapse.adapters.tokens.fetch import checked_url

    jwks_url = environ.get(JWKS_URL, "").strip()
    for name, url in ((ISSUER, issuer), (JWKS_URL, jwks_url or issuer)):
        try:
            checked_url(url)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    named = environ.get(AUDIENCE, "") or environ.get(COGNITO_CLIENT_ID, "")
    audiences = frozenset(each.strip() for each in named.split(",") if each.strip())
    if not audiences:
        # Else a token that somebody else's application was given would do.
        raise ValueError(f"{AUDIENCE}: say whom the tokens of {ISSUER} must be for")
    default_tenant = environ.get(DEFAULT_TENANT, "").strip() or None
    if default_tenant is not None and not is_tenant_name(default_tenant):
        raise ValueError(f"{DEFAULT_TENANT}: {default_tenant!r} is no tenant's name")
    rules = TokenRules(
        issuer,
        audiences,
        environ.get(TENANT_CLAIM, "").strip() or "tenant",
        default_tenant,
    )
    return OidcIssuer(rules, jwks_url)
