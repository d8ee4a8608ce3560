"""Who may call this machine's server."""

from __future__ import annotations

import time

from synapse.adapters.local.keys import SqliteKeyStore
from synapse.api.gate import Identify, by_credential
from synapse.application.authentication import Authenticator
from synapse.application.keys import Keys, KeyWish
from synapse.application.login import Login
from synapse.domain.access import ALL_SCOPES, ANYONE
from synapse.domain.rights import Rights
from synapse_server.config import ServerConfig
from synapse_server.logins import Logins
from synapse_server.loopback import whoever_is_here
from synapse_server.records import Records

FIRST_KEY = KeyWish("made at the first start", Rights(ALL_SCOPES))


class AccessParts:
    """Keys, tenants, users, and who a request is from: nobody is asked without `config.auth`."""

    def __init__(self, records: Records, config: ServerConfig) -> None:
        """Made of the records of a data folder.

        Raises:
            StorageError: the key that signs the tokens of logins cannot be read.
        """
        self._store: SqliteKeyStore = records.keys
        self._auth = config.auth
        self._origins = config.cors_origins
        self._logins = Logins(records, config)
        self.keys = Keys(records.keys, records.registry.models, time.time)
        self.login = Login(self._logins, time.monotonic)

    @property
    def identify(self) -> Identify:
        """Tells who calls."""
        if not self._auth:
            return whoever_is_here(self._origins)
        return by_credential(Authenticator(self._store, time.time, self._logins))

    async def first_key(self) -> str | None:
        """A key for everything, if there has never been one; it is shown, and kept nowhere.

        Raises:
            Unavailable: it cannot be written down.
        """
        if not self._auth or not self._store.is_empty():
            return None
        return (await self.keys.create(ANYONE, FIRST_KEY)).text

    async def close(self) -> None:
        """Finish the logins that were begun."""
        await self._logins.close()
