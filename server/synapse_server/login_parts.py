"""Who logs in to this machine's server with a password, and whose tokens it takes."""

from __future__ import annotations

import time

from synapse.adapters.local.login_tokens import ISSUER, LoginTokens, signing_key
from synapse.adapters.local.passwords import Argon2Passwords
from synapse.adapters.local.users import SqliteUserStore
from synapse.adapters.tokens.verifier import VerifierByIssuer
from synapse.application.login import LocalAccounts
from synapse.ports import TokenVerifier
from synapse_server.config import ServerConfig
from synapse_server.logins import SIGNING_KEY
from synapse_server.records import Records


class LoginParts:
    """Logins, and tokens of theirs and of the identity provider, if there is one."""

    def __init__(self, records: Records, config: ServerConfig) -> None:
        """Made of the records of a data folder.

        Raises:
            StorageError: the signing key cannot be read or made.
        """
        users = SqliteUserStore(records.access)
        own = LoginTokens(signing_key(config.data_dir / SIGNING_KEY), users, time.time)
        verifiers: dict[str, TokenVerifier] = {ISSUER: own}
        if config.issuer is not None:
            verifiers[config.issuer.rules.issuer] = config.issuer.verifier(time.time)
        self.tokens = VerifierByIssuer(verifiers)
        self.passwords = Argon2Passwords()
        self.accounts = LocalAccounts(users, self.passwords, own)
