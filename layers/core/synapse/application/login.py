"""Logging in: a name and a password become a token, and guessing does not pay."""

from __future__ import annotations

import logging
from dataclasses import replace

from synapse.domain.errors import LimitReached, SynapseError, Unauthenticated
from synapse.domain.login_throttle import LoginThrottle
from synapse.domain.user import WRONG, Grant, is_username
from synapse.ports import Clock
from synapse.ports.users import PasswordHasher, SignIn, TokenSigner, UserStore

audit = logging.getLogger("synapse.audit")


class Login:
    """What the route asks: it counts failures, whoever looks the password up.

    The counts are this process's. On AWS that is one of several; there Cognito counts too.
    `clock` is one that is never put back, so that no pause is longer than it was to be.
    """

    def __init__(self, accounts: SignIn, clock: Clock) -> None:
        self._accounts = accounts
        self._clock = clock
        self._throttle = LoginThrottle()

    async def grant(self, username: str, password: str, address: str) -> Grant:
        """A token for the user; `address` is where the request is from.

        Raises:
            Unauthenticated: the name or the password is wrong.
            LimitReached: there were too many failures before.
            Forbidden, Unavailable: see `SignIn`.
        """
        try:
            self._throttle.begin(username, address, self._clock())
            grant = await self._accounts.sign_in(username, password)
        except Unauthenticated:
            # The name that was typed is not logged: it may be a password in the wrong field.
            audit.warning("login refused: wrong name or password from %s", address)
            raise
        except LimitReached:
            audit.warning("login refused: too many failures from %s", address)
            raise
        except SynapseError:
            self._throttle.undecided(username, address)
            raise
        self._throttle.succeeded(username, address)
        audit.info("logged in: %s from %s", username, address)
        return grant


class LocalAccounts:
    """See the port `SignIn`: users of this machine."""

    def __init__(self, users: UserStore, hasher: PasswordHasher, signer: TokenSigner) -> None:
        self._users = users
        self._hasher = hasher
        self._signer = signer

    async def sign_in(self, username: str, password: str) -> Grant:
        """See the port. A hash is computed also for nobody, so that it takes as long."""
        user = await self._users.get(username) if is_username(username) else None
        is_right = await self._hasher.matches(user.password_hash if user else None, password)
        if user is None or not is_right or user.is_disabled:
            raise Unauthenticated(WRONG)
        if self._hasher.is_outdated(user.password_hash):
            renewed = await self._hasher.hash(password)
            # Should it not be written, the next login does it.
            await self._users.replace(
                replace(user, password_hash=renewed, revision=user.revision + 1)
            )
        return self._signer.grant(user)
