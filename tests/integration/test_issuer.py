"""A verifier and an identity provider over a real socket: keys rotate, and the provider fails."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from synapse.adapters.tokens.fetch import MAX_BYTES, FetchError, fetch_json
from synapse.adapters.tokens.issuer import oidc_issuer
from synapse.adapters.tokens.jwks import ASK_AGAIN_S, FRESH_S
from synapse.domain.errors import Unauthenticated, Unavailable
from synapse.ports import TokenVerifier
from tests.fakes import FakeClock
from tests.oidc_server import OidcServer, dribble, send
from tests.tokens import AUDIENCE, SigningKey, a_claim_set, signing_key


@pytest.fixture
def provider() -> Iterator[OidcServer]:
    with OidcServer(signing_key()) as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def verifier(provider: OidcServer, clock: FakeClock) -> TokenVerifier:
    environ = {"SYNAPSE_OIDC_ISSUER": provider.url, "SYNAPSE_OIDC_AUDIENCE": AUDIENCE}
    issuer = oidc_issuer(environ)
    assert issuer is not None
    return issuer.verifier(clock)


def a_token(provider: OidcServer, clock: FakeClock, key: SigningKey | None = None) -> str:
    now = int(clock())
    # No two are alike: one that was verified is not verified anew for a while.
    says = a_claim_set(iss=provider.url, iat=now, exp=now + 300, jti=str(time.monotonic_ns()))
    return (key or signing_key()).token(says)


async def test_the_provider_is_found_by_its_address_and_asked_once(
    provider: OidcServer, verifier: TokenVerifier, clock: FakeClock
) -> None:
    tokens = [a_token(provider, clock) for _ in range(20)]

    principals = await asyncio.gather(*map(verifier.verify, tokens))

    assert {principal.account for principal in principals} == {"user-1"}
    assert provider.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_a_new_key_is_taken_up_and_the_old_one_ends_with_its_set(
    provider: OidcServer, verifier: TokenVerifier, clock: FakeClock
) -> None:
    await verifier.verify(a_token(provider, clock))
    two = signing_key("ES256", "two")
    provider.keys = (two,)
    clock.advance(ASK_AGAIN_S)
    assert (await verifier.verify(a_token(provider, clock))).account == "user-1"

    assert (await verifier.verify(a_token(provider, clock, two))).account == "user-1"

    with pytest.raises(Unauthenticated):
        await verifier.verify(a_token(provider, clock))


async def test_while_the_provider_is_down_the_keys_that_are_known_are_used(
    provider: OidcServer, verifier: TokenVerifier, clock: FakeClock
) -> None:
    await verifier.verify(a_token(provider, clock))
    provider.stop()
    try:
        for _ in range(3):
            clock.advance(FRESH_S + 1)
            assert (await verifier.verify(a_token(provider, clock))).account == "user-1"
    finally:
        provider.start()

    two = signing_key("ES256", "two")
    provider.keys = (two,)
    clock.advance(ASK_AGAIN_S)
    assert (await verifier.verify(a_token(provider, clock, two))).account == "user-1"


async def test_without_its_keys_nobody_can_tell_whether_a_token_is_good(
    provider: OidcServer, verifier: TokenVerifier, clock: FakeClock
) -> None:
    provider.stop()
    try:
        with pytest.raises(Unavailable):
            await verifier.verify(a_token(provider, clock))
    finally:
        provider.start()


async def test_another_s_issuer_in_its_discovery_document_is_not_believed(
    provider: OidcServer, clock: FakeClock
) -> None:
    environ = {
        "SYNAPSE_OIDC_ISSUER": f"http://localhost:{provider.port}",
        "SYNAPSE_OIDC_AUDIENCE": AUDIENCE,
    }
    issuer = oidc_issuer(environ)
    assert issuer is not None
    token = signing_key().token(a_claim_set(iss=issuer.rules.issuer))

    with pytest.raises(Unavailable):
        await issuer.verifier(clock).verify(token)
    told = replace(issuer, jwks_url=provider.jwks_url)
    assert (await told.verifier(clock).verify(token)).account == "user-1"


async def test_a_slow_provider_holds_up_nobody_but_those_who_need_it(
    provider: OidcServer, verifier: TokenVerifier, clock: FakeClock
) -> None:
    provider.answer = dribble
    waiting = asyncio.create_task(verifier.verify(a_token(provider, clock)))
    turns = 0
    while not waiting.done():
        await asyncio.sleep(0.01)
        turns += 1

    assert turns > 10, "the loop stood still"
    with pytest.raises(Unavailable):
        await waiting


def test_an_answer_that_never_ends_is_given_up(provider: OidcServer) -> None:
    provider.answer = dribble

    with pytest.raises(FetchError, match="not whole"):
        fetch_json(provider.jwks_url)


def test_an_answer_that_is_too_large_is_given_up(provider: OidcServer) -> None:
    body = json.dumps({"keys": "x" * MAX_BYTES}).encode()
    provider.answer = lambda to: send(to, 200, body)

    with pytest.raises(FetchError, match="more than"):
        fetch_json(provider.jwks_url)


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_not_followed(provider: OidcServer, status: int) -> None:
    provider.answer = lambda to: send(to, status, b"", Location=f"{provider.url}/elsewhere")

    with pytest.raises(FetchError):
        fetch_json(provider.jwks_url)
    assert provider.asked == ["/keys"]


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"\xff", b"[" * 5000])
def test_an_answer_that_is_no_json_object_is_refused(provider: OidcServer, body: bytes) -> None:
    provider.answer = lambda to: send(to, 200, body)

    with pytest.raises(FetchError):
        fetch_json(provider.jwks_url)


def test_an_error_of_the_provider_s_is_an_error(provider: OidcServer) -> None:
    provider.answer = lambda to: send(to, 500, b"{}")

    with pytest.raises(FetchError, match="Internal"):
        fetch_json(provider.jwks_url)


def test_a_proxy_of_the_environment_s_is_not_asked_for_this_machine(
    provider: OidcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    assert fetch_json(provider.jwks_url)["keys"]
