"""Whose credential it is, and that nothing tells why one is refused."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from synapse.application.authentication import Authenticator
from synapse.domain.access import REFUSED, Limits, Principal, Scope, Tenant
from synapse.domain.api_key import ApiKey, digest
from synapse.domain.errors import Unauthenticated
from tests.factories import NOW
from tests.fake_keys import MemoryKeyStore
from tests.fakes import FakeClock

SECRET = "S" * 43
KEY_TEXT = f"sk-syn-key000000001{SECRET}"
KEY = ApiKey(
    id="key000000001",
    tenant="acme",
    name="a laptop",
    digest=digest(KEY_TEXT),
    created_at=NOW,
    scopes=frozenset({Scope.INFERENCE}),
    models=frozenset({"echo"}),
    limits=Limits(requests_per_minute=3),
)
ACME = Tenant("acme", Limits(requests_per_minute=10))


class OneToken:
    """Knows one token."""

    async def verify(self, token: str) -> Principal:
        if token != "signed":
            raise Unauthenticated("no")
        return Principal("acme", "somebody@acme")


async def an_authenticator(key: ApiKey = KEY, clock: FakeClock | None = None) -> Authenticator:
    store = MemoryKeyStore(key)
    await store.describe(ACME)
    return Authenticator(store, clock or FakeClock(), OneToken())


async def test_a_key_acts_for_its_tenant_with_its_rights_and_both_their_limits() -> None:
    principal = await (await an_authenticator()).principal(KEY_TEXT)

    assert principal == Principal(
        tenant="acme",
        account=KEY.id,
        scopes=KEY.scopes,
        models=KEY.models,
        limits=KEY.limits,
        tenant_limits=ACME.limits,
    )


async def test_a_token_s_bearer_shares_the_limits_of_its_tenant() -> None:
    principal = await (await an_authenticator()).principal("signed")

    assert principal == Principal("acme", "somebody@acme", tenant_limits=ACME.limits)


@pytest.mark.parametrize(
    ("credential", "key", "cause"),
    [
        ("sk-syn-", KEY, "malformed key"),
        (KEY_TEXT + "0", KEY, "malformed key"),
        (KEY_TEXT[:-1] + "é", KEY, "malformed key"),
        (f"sk-syn-key000000002{SECRET}", KEY, "unknown key key000000002"),
        (KEY_TEXT[:-1] + "T", KEY, "wrong secret key000000001"),
        (KEY_TEXT, replace(KEY, expires_at=NOW), "expired key key000000001"),
        (KEY_TEXT, replace(KEY, revoked_at=NOW), "revoked key key000000001"),
    ],
    ids=["prefix", "too long", "other letters", "unknown", "wrong", "expired", "revoked"],
)
async def test_a_bad_key_is_refused_alike_and_the_log_tells_why_without_it(
    credential: str, key: ApiKey, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    authenticator = await an_authenticator(key)

    with (
        caplog.at_level(logging.INFO, logger="synapse.audit"),
        pytest.raises(Unauthenticated) as refused,
    ):
        await authenticator.principal(credential)

    assert (refused.value.message, refused.value.code) == (REFUSED, "invalid_api_key")
    assert cause in caplog.text
    assert credential[19:] not in caplog.text or not credential[19:]


async def test_a_key_is_good_until_its_time_is_over() -> None:
    clock = FakeClock()
    authenticator = await an_authenticator(replace(KEY, expires_at=NOW + 60), clock)

    clock.advance(59.9)
    assert (await authenticator.principal(KEY_TEXT)).account == KEY.id

    clock.advance(0.1)
    with pytest.raises(Unauthenticated):
        await authenticator.principal(KEY_TEXT)


async def test_the_secret_before_the_last_change_is_good_for_a_while() -> None:
    clock = FakeClock()
    new_text = KEY_TEXT[:-1] + "N"
    authenticator = await an_authenticator(KEY.rotated(new_text, NOW, grace_s=60), clock)

    clock.advance(59.9)
    assert await authenticator.principal(KEY_TEXT) == await authenticator.principal(new_text)

    clock.advance(0.1)
    assert (await authenticator.principal(new_text)).account == KEY.id
    with pytest.raises(Unauthenticated):
        await authenticator.principal(KEY_TEXT)


async def test_what_is_revoked_is_so_with_either_secret() -> None:
    new_text = KEY_TEXT[:-1] + "N"
    key = KEY.rotated(new_text, NOW, grace_s=60).revoked(NOW)

    for text in (KEY_TEXT, new_text):
        with pytest.raises(Unauthenticated):
            await (await an_authenticator(key)).principal(text)


async def test_without_anybody_who_vouches_for_tokens_none_is_taken() -> None:
    authenticator = Authenticator(MemoryKeyStore(KEY), FakeClock())

    with pytest.raises(Unauthenticated):
        await authenticator.principal("signed")
