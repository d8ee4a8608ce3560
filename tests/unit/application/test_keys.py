"""Who manages which keys, and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest

from synapse.application.authentication import Authenticator
from synapse.application.keys import Keys, KeyWish, NewKey
from synapse.domain.access import (
    ALL_SCOPES,
    ANYONE,
    Limits,
    Principal,
    Scope,
    Tenant,
    are_too_many,
)
from synapse.domain.api_key import ApiKey, key_id_of
from synapse.domain.errors import (
    Forbidden,
    InvalidRequest,
    KeyNotGood,
    KeyUnknown,
    TenantUnknown,
    Unauthenticated,
    Unavailable,
)
from synapse.domain.model import ModelSpec
from synapse.domain.rights import Rights
from tests.factories import NOW, a_model
from tests.fake_keys import MemoryKeyStore
from tests.fakes import FakeClock

DAY_S = 86_400.0
ACME = Principal("acme", "boss@acme")


class Office:
    """Keys over a store that can be looked into, and the door that they open."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.served = ["echo", "smollm2"]
        self.store = MemoryKeyStore()
        self.keys = Keys(self.store, self.models, self.clock)
        self.door = Authenticator(self.store, self.clock)

    async def models(self) -> Sequence[ModelSpec]:
        return [a_model(name) for name in self.served]

    async def made(self, maker: Principal = ANYONE, **wish: object) -> NewKey:
        return await self.keys.create(maker, KeyWish("a test", **wish))  # type: ignore[arg-type]

    async def opens(self, text: str) -> bool:
        try:
            await self.door.principal(text)
        except Unauthenticated:
            return False
        return True


@pytest.fixture
def office() -> Office:
    return Office()


async def test_a_new_key_opens_the_door_and_its_secret_is_kept_nowhere(office: Office) -> None:
    made = await office.made(rights=Rights(models=frozenset({"echo"})), expires_in_s=60.0)

    assert made.key == await office.store.get(key_id_of(made.text) or "")
    assert (made.key.tenant, made.key.created_at) == ("default", NOW)
    assert made.key.expires_at == NOW + 60
    principal = await office.door.principal(made.text)
    assert (principal.account, principal.models) == (made.key.id, frozenset({"echo"}))
    assert made.text[19:] not in repr(made.key)


async def test_no_two_keys_are_alike(office: Office) -> None:
    texts = {(await office.made()).text for _ in range(50)}

    assert len(texts) == len({key_id_of(text) for text in texts}) == 50


async def test_a_model_that_is_not_served_is_named(office: Office) -> None:
    with pytest.raises(InvalidRequest, match=r"'gpt', 'x' not served here.*echo, smollm2") as no:
        await office.made(rights=Rights(models=frozenset({"x", "gpt", "echo"})))

    assert no.value.param == "models"


async def test_a_model_that_the_maker_does_not_see_is_not_there(office: Office) -> None:
    maker = replace(ACME, models=frozenset({"echo"}))

    with pytest.raises(InvalidRequest, match=r"'smollm2' not served here; choose from: echo$"):
        await office.made(maker, rights=Rights(models=frozenset({"smollm2"})))


async def test_a_key_gets_no_more_than_its_maker_has(office: Office) -> None:
    maker = replace(ACME, scopes=frozenset({Scope.ADMIN, Scope.INFERENCE}))

    with pytest.raises(Forbidden, match="scopes: batches"):
        await office.made(maker, rights=Rights(frozenset({Scope.BATCHES})))
    assert list(await office.keys.list(maker)) == []


async def test_a_key_does_not_outlive_the_one_that_made_it(office: Office) -> None:
    first = await office.made(rights=Rights(ALL_SCOPES), expires_in_s=DAY_S)
    maker = await office.door.principal(first.text)

    assert (await office.made(maker)).key.expires_at == NOW + DAY_S
    with pytest.raises(Forbidden, match="ends sooner itself"):
        await office.made(maker, expires_in_s=DAY_S + 1)


async def test_keys_are_listed_from_the_oldest_to_the_youngest(office: Office) -> None:
    made = []
    for _ in range(5):
        made.append((await office.made()).key)
        office.clock.advance(1)

    assert list(await office.keys.list(ANYONE)) == made


async def test_more_models_than_can_be_told_on_every_target_are_refused(office: Office) -> None:
    office.served = [f"model-{number:04d}" for number in range(400)]
    most = next(n for n in range(400) if are_too_many(office.served[: n + 1]))

    kept = await office.made(rights=Rights(models=frozenset(office.served[:most])))
    with pytest.raises(InvalidRequest, match="leave them out for all models") as refused:
        await office.made(rights=Rights(models=frozenset(office.served[: most + 1])))

    assert refused.value.param == "models"
    assert most > 150
    assert list(await office.keys.list(ANYONE)) == [kept.key]


async def test_a_revoked_key_opens_nothing_and_stays_on_the_list(office: Office) -> None:
    made = await office.made()
    assert await office.opens(made.text)

    office.clock.advance(5)
    revoked = await office.keys.revoke(ANYONE, made.key.id)

    assert not await office.opens(made.text)
    assert revoked.revoked_at == NOW + 5
    assert list(await office.keys.list(ANYONE)) == [revoked]
    assert office.keys.status(revoked) == "revoked"


async def test_to_revoke_a_key_twice_changes_nothing(office: Office) -> None:
    made = await office.made()
    revoked = await office.keys.revoke(ANYONE, made.key.id)
    office.clock.advance(5)

    assert await office.keys.revoke(ANYONE, made.key.id) == revoked


async def test_no_secret_is_shown_by_what_shows_keys(office: Office) -> None:
    made = await office.made()
    rotated = await office.keys.rotate(ANYONE, made.key.id)

    shown = repr([made, rotated])
    for secret in (made.text, rotated.text, made.key.digest, rotated.key.digest):
        assert secret not in shown


async def test_a_rotated_key_opens_with_both_secrets_for_a_day_and_keeps_its_account(
    office: Office,
) -> None:
    made = await office.made()
    rotated = await office.keys.rotate(ANYONE, made.key.id)

    office.clock.advance(DAY_S - 1)
    assert await office.door.principal(made.text) == await office.door.principal(rotated.text)
    office.clock.advance(1)
    assert not await office.opens(made.text)
    assert (await office.door.principal(rotated.text)).account == made.key.id


async def test_without_grace_the_secret_before_ends_at_once(office: Office) -> None:
    made = await office.made()
    rotated = await office.keys.rotate(ANYONE, made.key.id, grace_s=0)

    assert not await office.opens(made.text)
    assert await office.opens(rotated.text)


async def test_of_more_than_two_secrets_only_the_last_two_open(office: Office) -> None:
    first = await office.made()
    second = await office.keys.rotate(ANYONE, first.key.id)
    third = await office.keys.rotate(ANYONE, first.key.id)

    assert [await office.opens(made.text) for made in (first, second, third)] == [
        False,
        True,
        True,
    ]


async def test_what_is_revoked_or_expired_gets_no_new_secret(office: Office) -> None:
    revoked, expired = await office.made(), await office.made(expires_in_s=1.0)
    await office.keys.revoke(ANYONE, revoked.key.id)
    office.clock.advance(1)

    for key, state in ((revoked.key, "revoked"), (expired.key, "expired")):
        with pytest.raises(KeyNotGood, match=state):
            await office.keys.rotate(ANYONE, key.id)


async def test_nobody_gets_the_rights_of_a_greater_key_by_rotating_it(office: Office) -> None:
    great = await office.made(tenant="acme", rights=Rights(ALL_SCOPES))
    small = replace(ACME, models=frozenset({"echo"}))

    with pytest.raises(Forbidden, match="can do more"):
        await office.keys.rotate(small, great.key.id)
    assert await office.store.get(great.key.id) == great.key


async def test_an_admin_of_a_tenant_manages_its_keys_and_no_others(office: Office) -> None:
    ours, theirs = await office.made(ACME), await office.made(tenant="other")
    assert (ours.key.tenant, theirs.key.tenant) == ("acme", "other")

    assert list(await office.keys.list(ACME)) == [ours.key]
    for tenant in ("other", "default", "nobody"):
        with pytest.raises(Forbidden, match="other tenants"):
            await office.keys.list(ACME, tenant)
        with pytest.raises(Forbidden, match="other tenants"):
            await office.made(ACME, tenant=tenant)


async def test_another_tenant_s_key_is_one_that_does_not_exist(office: Office) -> None:
    theirs = (await office.made(tenant="other")).key

    for key_id in (theirs.id, "nothing00000"):
        with pytest.raises(KeyUnknown) as revoking:
            await office.keys.revoke(ACME, key_id)
        with pytest.raises(KeyUnknown) as rotating:
            await office.keys.rotate(ACME, key_id)
        assert revoking.value.message == rotating.value.message == f"there is no key {key_id!r}"
    assert await office.store.get(theirs.id) == theirs


async def test_an_operator_manages_everybody_s_keys(office: Office) -> None:
    theirs = await office.made(ANYONE, tenant="other")

    assert list(await office.keys.list(ANYONE, "other")) == [theirs.key]
    assert (await office.keys.revoke(ANYONE, theirs.key.id)).revoked_at == NOW


async def test_only_an_operator_sets_what_a_tenant_may_use(office: Office) -> None:
    limited = Tenant("acme", Limits(monthly_usd=5.0))
    await office.keys.describe(ANYONE, limited)

    for name in ("acme", "other"):
        with pytest.raises(Forbidden, match="only an admin of the tenant 'default'"):
            await office.keys.describe(ACME, Tenant(name))
    assert await office.keys.tenant(ACME, "acme") == limited
    assert list(await office.keys.tenants(ACME)) == [limited]


async def test_another_tenant_is_one_that_does_not_exist(office: Office) -> None:
    await office.keys.describe(ANYONE, Tenant("other", Limits(monthly_usd=5.0)))

    for name in ("other", "nobody"):
        with pytest.raises(TenantUnknown, match=f"there is no tenant '{name}'"):
            await office.keys.tenant(ACME, name)


async def test_a_tenant_is_there_once_it_is_described_or_has_a_key(office: Office) -> None:
    await office.keys.describe(ANYONE, Tenant("described"))
    await office.made(tenant="with-key")

    assert await office.keys.tenant(ANYONE, "described") == Tenant("described")
    assert await office.keys.tenant(ANYONE, "with-key") == Tenant("with-key")
    assert await office.keys.tenant(ACME, "acme") == Tenant("acme")
    with pytest.raises(TenantUnknown):
        await office.keys.tenant(ANYONE, "nobody")


async def test_a_tenant_that_cannot_be_called_so_is_not_looked_for(office: Office) -> None:
    await office.store.describe(Tenant("no name"))  # stores have limits of their own to names

    for name in ("no name", "x" * 5000):
        with pytest.raises(TenantUnknown):
            await office.keys.tenant(ANYONE, name)


class Interrupted(MemoryKeyStore):
    """Somebody else changes a key `times` times before our change."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def replace(self, key: ApiKey) -> bool:
        if self.times:
            self.times -= 1
            mine = await self.get(key.id)
            assert mine is not None
            await super().replace(replace(mine, name="renamed", revision=mine.revision + 1))
            return False
        return await super().replace(key)


async def test_a_change_by_somebody_else_in_between_is_not_lost(office: Office) -> None:
    office.store = Interrupted(times=2)
    keys = Keys(office.store, office.models, office.clock)
    made = await keys.create(ANYONE, KeyWish("a test"))

    revoked = await keys.revoke(ANYONE, made.key.id)

    assert (revoked.name, revoked.revoked_at, revoked.revision) == ("renamed", NOW, 3)


async def test_a_key_that_never_keeps_still_is_told_as_busy(office: Office) -> None:
    keys = Keys(Interrupted(times=99), office.models, office.clock)
    made = await keys.create(ANYONE, KeyWish("a test"))

    with pytest.raises(Unavailable, match="being changed"):
        await keys.revoke(ANYONE, made.key.id)


async def test_the_audit_log_tells_who_did_what_and_no_secret(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="synapse.audit"):
        made = await office.made(ACME)
        rotated = await office.keys.rotate(ACME, made.key.id, grace_s=5)
        await office.keys.revoke(ANYONE, made.key.id)
        await office.keys.describe(ANYONE, Tenant("acme", Limits(monthly_usd=5.0)))

    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith(f"key {made.key.id} created: tenant acme, scopes batches")
    assert lines[0].endswith("by acme/boss@acme")
    assert lines[1] == f"key {made.key.id} rotated: tenant acme, grace 5 s by acme/boss@acme"
    assert lines[2] == f"key {made.key.id} revoked: tenant acme by who has the machine"
    assert "tenant acme described" in lines[3]
    for text in (made.text, rotated.text):
        assert text[19:] not in caplog.text
    assert made.key.digest not in caplog.text
