"""Options of `synapse serve` that name an identity provider whose tokens are accepted."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from synapse.adapters.tokens.issuer import OidcIssuer, oidc_issuer
from synapse_server.config import StartError

OPTIONS = {
    "oidc-issuer": "https address of an identity provider whose tokens are accepted beside keys",
    "oidc-audience": "whom its tokens must be for (aud), comma-separated",
    "oidc-jwks-url": "where its signing keys are, if its discovery document is not to be asked",
    "oidc-tenant-claim": "claim that names the tenant, if not tenant or custom:tenant",
    "oidc-default-tenant": "tenant of tokens that name none; such are refused unless it is given",
}


def add_oidc_options(option: Callable[[str, str, str], None]) -> None:
    """Add the options; the environment may set each, as SYNAPSE_OIDC_ISSUER."""
    for name, text in OPTIONS.items():
        option(name, "", text)


def issuer_of(arguments: argparse.Namespace) -> OidcIssuer | None:
    """The issuer that the options name, if any.

    Raises:
        StartError: one of them is missing, malformed, or says nothing without the issuer.
    """
    given = {name.replace("-", "_"): "" for name in OPTIONS}
    given |= {name: getattr(arguments, name, "") for name in given}
    alone = next((name for name, value in given.items() if value.strip()), None)
    if alone is not None and not given["oidc_issuer"].strip():
        raise StartError(
            f"SYNAPSE_{alone.upper()}: says nothing without SYNAPSE_OIDC_ISSUER (--oidc-issuer), "
            "whose tokens are accepted; give both, or neither"
        )
    try:
        return oidc_issuer({f"SYNAPSE_{name.upper()}": value for name, value in given.items()})
    except ValueError as error:
        raise StartError(str(error)) from error
