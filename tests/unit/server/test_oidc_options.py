"""An identity provider is named by options or by the environment, all of it or nothing."""

from __future__ import annotations

import argparse

import pytest

from synapse.domain.token_claims import TokenRules
from synapse_server.config import StartError
from synapse_server.oidc_options import OPTIONS, add_oidc_options, issuer_of

ISSUER = "https://id.example/realm"


def arguments(**given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_oidc_options(lambda name, default, text: _add(parser, name, default, text))
    line = [f"--oidc-{name.replace('_', '-')}={value}" for name, value in given.items()]
    return parser.parse_args(line)


def _add(parser: argparse.ArgumentParser, name: str, default: str, text: str) -> None:
    parser.add_argument(f"--{name}", default=default, help=text)


def test_without_an_issuer_there_is_none() -> None:
    assert issuer_of(arguments()) is None
    assert issuer_of(argparse.Namespace()) is None


def test_an_issuer_needs_an_audience() -> None:
    with pytest.raises(StartError, match="SYNAPSE_OIDC_AUDIENCE"):
        issuer_of(arguments(issuer=ISSUER))


@pytest.mark.parametrize("option", ["audience", "jwks_url", "tenant_claim", "default_tenant"])
def test_what_says_something_of_no_issuer_is_refused_by_name(option: str) -> None:
    with pytest.raises(StartError, match=f"SYNAPSE_OIDC_{option.upper()}: says nothing without"):
        issuer_of(arguments(**{option: "one"}))


def test_an_issuer_is_named_with_all_there_is_to_say() -> None:
    issuer = issuer_of(
        arguments(
            issuer=ISSUER,
            audience="one, two,",
            jwks_url="https://id.example/keys",
            tenant_claim="org",
            default_tenant="guests",
        )
    )

    assert issuer is not None
    assert issuer.rules == TokenRules(ISSUER, frozenset({"one", "two"}), "org", "guests")
    assert issuer.jwks_url == "https://id.example/keys"


@pytest.mark.parametrize("option", ["issuer", "jwks_url"])
def test_an_address_that_is_not_https_is_refused_by_name(option: str) -> None:
    given = {"issuer": ISSUER, "audience": "one", option: "http://id.example"}

    with pytest.raises(StartError, match=f"SYNAPSE_OIDC_{option.upper()}"):
        issuer_of(arguments(**given))


def test_a_default_tenant_that_no_tenant_can_be_called_is_refused() -> None:
    with pytest.raises(StartError, match="SYNAPSE_OIDC_DEFAULT_TENANT: 'no one'"):
        issuer_of(arguments(issuer=ISSUER, audience="one", default_tenant="no one"))


def test_every_option_says_what_it_is_for() -> None:
    assert all(OPTIONS.values())
