"""Who may call this machine's server."""

from __future__ import annotations

import time

from synapse.adapters.local.keys import SqliteKeyStore
from synapse.api.gate import Identify, anyone, by_credential
from synapse.application.authentication import Authenticator
from synapse.application.keys import Keys, KeyWish
from synapse.domain.access import ALL_SCOPES, ANYONE
from synapse.domain.rights import Rights
from synapse_server.records import Records

FIRST_KEY = KeyWish("made at the first start", Rights(ALL_SCOPES))


class AccessParts:
    """Keys, tenants, and who a request is from."""

    def __init__(self, records: Records, *, auth: bool) -> None:
        """Without `auth` nobody is asked."""
        self._store: SqliteKeyStore = records.keys
        self._auth = auth
        self.keys = Keys(records.keys, records.registry.models, time.time)

    @property
    def identify(self) -> Identify:
        """Tells who calls."""
        return by_credential(Authenticator(self._store, time.time)) if self._auth else anyone

    async def first_key(self) -> str | None:
        """A key for everything, if there has never been one; it is shown, and kept nowhere.

        Raises:
            Unavailable: it cannot be written down.
        """
        if not self._auth or not self._store.is_empty():
            return None
        return (await self.keys.create(ANYONE, FIRST_KEY)).text
