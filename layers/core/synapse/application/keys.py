"""Who may call: keys and tenants, managed by those who have the scope `admin`.

An admin of the tenant `default`, the operator's, manages everybody's; any other admin the keys of
its own tenant only, and sees its limits without setting them. Another tenant's keys are to it what
keys are that do not exist. Nobody gives a key more than they have themselves.
"""

from __future__ import annotations

import logging
import secrets
import string
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from synapse.application.model_names import check_models
from synapse.domain.access import (
    DEFAULT_TENANT,
    Principal,
    Tenant,
    is_tenant_name,
)
from synapse.domain.api_key import GRACE_S, ID_LENGTH, PREFIX, SECRET_LENGTH, ApiKey, digest
from synapse.domain.errors import (
    Forbidden,
    KeyNotGood,
    KeyUnknown,
    TenantUnknown,
    Unavailable,
)
from synapse.domain.model import ModelSpec
from synapse.domain.rights import Rights, granted
from synapse.ports import Clock, KeyStore

audit = logging.getLogger("synapse.audit")

ATTEMPTS = 5
BASE62 = string.digits + string.ascii_letters


@dataclass(frozen=True, slots=True)
class KeyWish:
    """A key that somebody asks for; of their own tenant unless another is named."""

    name: str
    rights: Rights = field(default_factory=Rights)
    tenant: str | None = None
    expires_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with its secret, which is nowhere else: `text` is shown once."""

    key: ApiKey
    text: str = field(repr=False)


class Keys:
    """Manages keys and tenants; `models` are those that are served."""

    def __init__(
        self, store: KeyStore, models: Callable[[], Awaitable[Sequence[ModelSpec]]], clock: Clock
    ) -> None:
        self._store = store
        self._models = models
        self._clock = clock

    async def create(self, maker: Principal, wish: KeyWish) -> NewKey:
        """A new key, of the maker's tenant or (an operator's) another.

        Raises:
            Forbidden: it would have more than its maker, or belong to another tenant.
            InvalidRequest: a model is not served, or there are too many.
        """
        tenant, now = self._own(maker, wish.tenant), self._clock()
        await self._check_models(maker, wish.rights.models)
        wished = wish.rights
        if wish.expires_in_s is not None:
            wished = replace(wished, expires_at=now + wish.expires_in_s)
        rights = granted(wished, await self._rights(maker))
        key_id = _random(ID_LENGTH)
        text = _new_text(key_id)
        key = ApiKey(
            id=key_id,
            tenant=tenant,
            name=wish.name,
            digest=digest(text),
            created_at=now,
            scopes=rights.scopes,
            models=rights.models,
            tiers=rights.tiers,
            limits=rights.limits,
            expires_at=rights.expires_at,
        )
        await self._store.create(key)
        scopes = ",".join(sorted(key.scopes))
        _note("key %s created: tenant %s, scopes %s", maker, key_id, tenant, scopes)
        return NewKey(key, text)

    def status(self, key: ApiKey) -> str:
        """Whether a key is active, revoked or expired."""
        if key.revoked_at is not None:
            return "revoked"
        return "active" if key.is_good(self._clock()) else "expired"

    async def list(self, maker: Principal, tenant: str | None = None) -> Sequence[ApiKey]:
        """The keys of a tenant, the oldest first, also those that are no good any more.

        Raises:
            Forbidden: another tenant's.
        """
        found = await self._store.keys(self._own(maker, tenant))
        return sorted(found, key=lambda key: (key.created_at, key.id))

    async def revoke(self, maker: Principal, key_id: str) -> ApiKey:
        """The key, which opens nothing any more; a second time nothing changes.

        What was begun with it goes on: see `stop`.

        Raises:
            KeyUnknown: there is none, or it is another tenant's.
        """
        now = self._clock()

        async def change(key: ApiKey) -> ApiKey:
            return key if key.revoked_at is not None else key.revoked(now)

        key = await self._change(maker, key_id, change)
        if key.revoked_at == now:
            _note("key %s revoked: tenant %s", maker, key_id, key.tenant)
        return key

    async def stop(self, maker: Principal, key_id: str) -> ApiKey:
        """The key, revoked with all that was begun with it and is not running yet.

        Raises:
            KeyUnknown: there is none, or it is another tenant's.
        """
        now = self._clock()

        async def change(key: ApiKey) -> ApiKey:
            return key if key.stops_at is not None else key.stopped(now)

        key = await self._change(maker, key_id, change)
        if key.stops_at == now:
            _note("key %s revoked with its jobs: tenant %s", maker, key_id, key.tenant)
        return key

    async def rotate(self, maker: Principal, key_id: str, grace_s: float = GRACE_S) -> NewKey:
        """The key with a new secret; the one it had is good for `grace_s` yet, none before that.

        Raises:
            KeyUnknown: there is none, or it is another tenant's.
            KeyNotGood: it is revoked or expired.
            Forbidden: it can do more than who asks: they would get its rights.
        """
        now, text = self._clock(), _new_text(key_id)
        makers = await self._rights(maker)

        async def change(key: ApiKey) -> ApiKey:
            if not key.is_good(now):
                state = "expired" if key.revoked_at is None else "revoked"
                raise KeyNotGood(f"key {key_id!r} is {state}; make a new one")
            if granted(Rights.of_key(key), makers) != Rights.of_key(key):
                raise Forbidden("the key can do more than the one that asks for its new secret")
            return key.rotated(text, now, grace_s)

        key = await self._change(maker, key_id, change)
        _note("key %s rotated: tenant %s, grace %g s", maker, key_id, key.tenant, grace_s)
        return NewKey(key, text)

    async def tenants(self, maker: Principal) -> Sequence[Tenant]:
        """The tenants that were described; to who is no operator, their own."""
        if not _is_operator(maker):
            return [await self._store.tenant(maker.tenant)]
        return await self._store.tenants()

    async def tenant(self, maker: Principal, name: str) -> Tenant:
        """A tenant.

        Raises:
            TenantUnknown: nobody has described it and it has no keys, or it is not the maker's.
        """
        if not is_tenant_name(name) or (not _is_operator(maker) and name != maker.tenant):
            raise _no_tenant(name)
        tenant = await self._store.tenant(name)
        is_known = name == maker.tenant or tenant in await self._store.tenants()
        if not is_known and not await self._store.keys(name):
            raise _no_tenant(name)
        return tenant

    async def describe(self, maker: Principal, tenant: Tenant) -> Tenant:
        """Set what the accounts of a tenant may use together.

        Raises:
            Forbidden: the maker is no operator.
        """
        if not _is_operator(maker):
            raise Forbidden(f"only an admin of the tenant {DEFAULT_TENANT!r} sets tenants' limits")
        await self._store.describe(tenant)
        _note("tenant %s described: %s", maker, tenant.name, tenant.limits)
        return tenant

    async def _change(
        self, maker: Principal, key_id: str, change: Callable[[ApiKey], Awaitable[ApiKey]]
    ) -> ApiKey:
        """Change a key on condition that nobody else has meanwhile, else look at it again."""
        for _ in range(ATTEMPTS):
            key = await self._store.get(key_id)
            if key is None or not (_is_operator(maker) or key.tenant == maker.tenant):
                raise KeyUnknown(f"there is no key {key_id!r}")
            changed = await change(key)
            if changed == key or await self._store.replace(changed):
                return changed
        raise Unavailable(f"key {key_id!r} is being changed by others; try again")

    async def _rights(self, maker: Principal) -> Rights:
        """The maker's; a token's bearer has no key that would end."""
        key = await self._store.get(maker.account)
        return Rights.of_caller(maker, key.expires_at if key else None)

    async def _check_models(self, maker: Principal, names: Collection[str] | None) -> None:
        async def served() -> Collection[str]:
            return [model.name for model in await self._models() if maker.sees(model.name)]

        await check_models(names, served)

    def _own(self, maker: Principal, tenant: str | None) -> str:
        if tenant is None or tenant == maker.tenant or _is_operator(maker):
            return tenant or maker.tenant
        raise Forbidden(
            f"tenant: only an admin of the tenant {DEFAULT_TENANT!r} manages other tenants' keys"
        )


def _is_operator(maker: Principal) -> bool:
    return maker.tenant == DEFAULT_TENANT


def _random(length: int) -> str:
    return "".join(secrets.choice(BASE62) for _ in range(length))


def _new_text(key_id: str) -> str:
    return f"{PREFIX}{key_id}{_random(SECRET_LENGTH)}"


def _no_tenant(name: str) -> TenantUnknown:
    return TenantUnknown(f"there is no tenant {name!r}")


def _note(event: str, maker: Principal, *values: object) -> None:
    """A line of the audit log: never with a secret."""
    by = f"{maker.tenant}/{maker.account}" if maker.account else "who has the machine"
    audit.info(event + " by %s", *values, by)
