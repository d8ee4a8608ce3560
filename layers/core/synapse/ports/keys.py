"""Where keys and tenants are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from synapse.domain.access import Tenant
from synapse.domain.api_key import ApiKey


class KeyStore(Protocol):
    """Keys by their ids, and the tenants they belong to. All of it may raise Unavailable."""

    async def create(self, key: ApiKey) -> None:
        """Record a new key durably before returning.

        Raises:
            ValueError: the id is taken.
        """
        ...

    async def get(self, key_id: str) -> ApiKey | None:
        """The key of that id, also if it is no good any more."""
        ...

    async def keys(self, tenant: str) -> Sequence[ApiKey]:
        """All keys of a tenant, by their ids."""
        ...

    async def replace(self, key: ApiKey) -> bool:
        """Write a changed key if what is there is the revision before `key.revision`."""
        ...

    async def tenant(self, name: str) -> Tenant:
        """The tenant of that name; one that nobody has described has no limits."""
        ...

    async def tenants(self) -> Sequence[Tenant]:
        """The tenants that were described, by name."""
        ...

    async def describe(self, tenant: Tenant) -> None:
        """Set a tenant's limits, durably before returning."""
        ...
