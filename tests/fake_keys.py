"""Keys and tenants in dicts."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.domain.access import Tenant
from synapse.domain.api_key import ApiKey


class MemoryKeyStore:
    """Keys by their ids, tenants by their names."""

    def __init__(self, *keys: ApiKey) -> None:
        self._keys = {key.id: key for key in keys}
        self._tenants: dict[str, Tenant] = {}

    async def create(self, key: ApiKey) -> None:
        if key.id in self._keys:
            raise ValueError(f"there is a key {key.id!r} already")
        self._keys[key.id] = key

    async def get(self, key_id: str) -> ApiKey | None:
        return self._keys.get(key_id)

    async def keys(self, tenant: str) -> Sequence[ApiKey]:
        return [self._keys[id] for id in sorted(self._keys) if self._keys[id].tenant == tenant]

    async def replace(self, key: ApiKey) -> bool:
        if key.id not in self._keys or self._keys[key.id].revision != key.revision - 1:
            return False
        self._keys[key.id] = key
        return True

    async def tenant(self, name: str) -> Tenant:
        return self._tenants.get(name, Tenant(name))

    async def tenants(self) -> Sequence[Tenant]:
        return [self._tenants[name] for name in sorted(self._tenants)]

    async def describe(self, tenant: Tenant) -> None:
        self._tenants[tenant.name] = tenant
