"""Logins to this machine's server, which load what they need when the first one comes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from synapse.adapters.local.failures import StorageError
from synapse.domain.access import Principal
from synapse.domain.errors import Unavailable
from synapse.domain.user import Grant

if TYPE_CHECKING:
    from synapse_server.config import ServerConfig
    from synapse_server.login_parts import LoginParts
    from synapse_server.records import Records

logger = logging.getLogger(__name__)

SIGNING_KEY = "login-key.pem"
"""What tokens of logins are signed with, in the data folder. Without it all of them end."""


class Logins:
    """See the ports `SignIn` and `TokenVerifier`: of users of a data folder and its issuer.

    Who sends an API key does not wait for the cryptography.
    """

    def __init__(self, records: Records, config: ServerConfig) -> None:
        """Made of the records of a data folder.

        Raises:
            StorageError: there is a signing key, and it cannot be read.
        """
        self._records, self._config = records, config
        has_key = (config.data_dir / SIGNING_KEY).exists()
        # What is wrong with the key is told before anybody needs it.
        self._parts = self._loaded() if has_key else None

    async def sign_in(self, username: str, password: str) -> Grant:
        """See the port."""
        return await self._needed().accounts.sign_in(username, password)

    async def verify(self, token: str) -> Principal:
        """See the port."""
        return await self._needed().tokens.verify(token)

    async def close(self) -> None:
        """Finish the logins that were begun."""
        if self._parts is not None:
            await self._parts.passwords.close()

    def _needed(self) -> LoginParts:
        if self._parts is None:
            try:
                self._parts = self._loaded()
            except StorageError as error:
                # Not for whoever asks: it names places of this machine.
                logger.error("nobody can log in: %s", error)
                raise Unavailable("logins and their tokens do not work at present") from error
        return self._parts

    def _loaded(self) -> LoginParts:
        from synapse_server.login_parts import LoginParts

        return LoginParts(self._records, self._config)
