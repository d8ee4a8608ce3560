"""KeyStore: keys found by their ids, changed one after the other, listed by tenant."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from synapse.domain.access import ALL_SCOPES, Limits, Tenant
from synapse.domain.api_key import ApiKey
from synapse.domain.job import SlaTier
from synapse.ports import KeyStore
from tests.factories import NOW

PLAIN = ApiKey("a00000000001", "default", "a laptop", "0" * 64, NOW)
FULL = ApiKey(
    id="b00000000002",
    tenant="döner & co",
    name="Größe “XL”",
    digest="f" * 64,
    created_at=NOW + 0.123456,
    scopes=ALL_SCOPES,
    models=frozenset({"echo", "smollm2"}),
    tiers=frozenset({SlaTier.SILVER, SlaTier.BRONZE}),
    limits=Limits(60, 10_000, 4, 512, 12.34),
    expires_at=NOW + 3600.5,
    revoked_at=NOW + 60.25,
    stops_at=NOW + 61.5,
    rotated_at=NOW + 30.5,
    previous_digest="e" * 64,
    previous_until=NOW + 45.75,
    revision=7,
)
NOTHING_ALLOWED = replace(
    PLAIN, id="d00000000004", scopes=frozenset(), models=frozenset(), tiers=frozenset()
)
LIMITED = Tenant("acme", Limits(requests_per_minute=100, monthly_usd=0.5))


async def test_there_is_no_key_of_an_unknown_id(key_store: KeyStore) -> None:
    assert await key_store.get(PLAIN.id) is None
    assert list(await key_store.keys("default")) == []


async def test_a_key_comes_back_as_it_was_made(key_store: KeyStore) -> None:
    for key in (PLAIN, FULL, NOTHING_ALLOWED):
        await key_store.create(key)

        assert await key_store.get(key.id) == key


async def test_an_id_is_taken_once(key_store: KeyStore) -> None:
    await key_store.create(PLAIN)

    with pytest.raises(ValueError, match=PLAIN.id):
        await key_store.create(replace(PLAIN, name="another"))
    with pytest.raises(ValueError, match=PLAIN.id):
        await key_store.create(replace(PLAIN, tenant="acme"))

    assert await key_store.get(PLAIN.id) == PLAIN
    assert list(await key_store.keys("acme")) == []


async def test_a_tenant_s_keys_come_by_their_ids_and_no_other_tenant_s(
    key_store: KeyStore,
) -> None:
    for key in (NOTHING_ALLOWED, FULL, PLAIN):
        await key_store.create(key)

    assert list(await key_store.keys("default")) == [PLAIN, NOTHING_ALLOWED]
    assert list(await key_store.keys(FULL.tenant)) == [FULL]


async def test_a_changed_key_takes_the_place_of_the_revision_before(key_store: KeyStore) -> None:
    revoked = replace(PLAIN, revoked_at=NOW, revision=1)
    await key_store.create(PLAIN)

    assert await key_store.replace(revoked)

    assert await key_store.get(PLAIN.id) == revoked
    assert list(await key_store.keys("default")) == [revoked]


async def test_a_change_of_an_older_revision_changes_nothing(key_store: KeyStore) -> None:
    first, late = replace(PLAIN, revoked_at=NOW, revision=1), replace(PLAIN, revision=1)
    await key_store.create(PLAIN)
    await key_store.replace(first)

    assert not await key_store.replace(late)

    assert await key_store.get(PLAIN.id) == first
    assert list(await key_store.keys("default")) == [first]


async def test_what_is_not_there_cannot_be_changed(key_store: KeyStore) -> None:
    assert not await key_store.replace(replace(PLAIN, revision=1))

    assert await key_store.get(PLAIN.id) is None
    assert list(await key_store.keys("default")) == []


async def test_of_changes_at_the_same_time_one_is_made(key_store: KeyStore) -> None:
    changes = [replace(PLAIN, name=f"change {number}", revision=1) for number in range(8)]
    await key_store.create(PLAIN)

    made = await asyncio.gather(*(key_store.replace(change) for change in changes))

    assert made.count(True) == 1
    assert await key_store.get(PLAIN.id) == changes[made.index(True)]


async def test_a_tenant_that_nobody_described_has_no_limits(key_store: KeyStore) -> None:
    assert await key_store.tenant("acme") == Tenant("acme")
    assert list(await key_store.tenants()) == []


async def test_a_tenant_is_as_it_was_last_described(key_store: KeyStore) -> None:
    await key_store.describe(LIMITED)
    assert await key_store.tenant("acme") == LIMITED

    await key_store.describe(Tenant("acme"))

    assert await key_store.tenant("acme") == Tenant("acme")


async def test_described_tenants_come_by_name(key_store: KeyStore) -> None:
    for tenant in (Tenant("zoo"), LIMITED):
        await key_store.describe(tenant)

    assert list(await key_store.tenants()) == [LIMITED, Tenant("zoo")]
