"""API keys: `sk-syn-<id><secret>`, of which only the id and a hash are kept.

The secret is 256 random bits, so that a plain SHA-256 is as good as a slow hash: there is no
list of likely secrets to try (NIST SP 800-63B §5.1.2 asks for slow hashes of memorised ones).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field, replace

from synapse.domain.access import NO_LIMITS, ORDINARY_SCOPES, Limits, Principal, Scope, Tenant
from synapse.domain.job import SlaTier

PREFIX = "sk-syn-"
ID_LENGTH = 12
SECRET_LENGTH = 43
"""256 bits in base 62."""

MAX_NAME_LENGTH = 100
MAX_LIFE_S = 10 * 365 * 86_400
GRACE_S = 86_400
"""How long the secret before the last is good after a rotation, unless told otherwise."""

MAX_GRACE_S = 30 * 86_400

_FORM = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})[0-9A-Za-z]{{{SECRET_LENGTH}}}")


def key_id_of(text: str) -> str | None:
    """The id in a key; None if it has not the form of one of ours."""
    match = _FORM.fullmatch(text)
    return match[1] if match else None


def is_key_name(text: str) -> bool:
    """Whether a key may be called that. Terminals show it: nothing in it may steer one."""
    return 1 <= len(text) <= MAX_NAME_LENGTH and text.isprintable()


def digest(text: str) -> str:
    """What is kept of a key: the SHA-256 of all of it, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key: everything but its secret. Times are seconds since the epoch.

    `id` is the part of the key that finds it, which stays when the secret is changed: what is used
    is counted by it. From `stops_at` on nothing more is run of what was begun with it. Until
    `previous_until` the secret before the last change is good too. `revision` counts the changes:
    each is conditional on the one before.
    """

    id: str
    tenant: str
    name: str
    digest: str = field(repr=False)
    created_at: float
    scopes: frozenset[Scope] = ORDINARY_SCOPES
    models: frozenset[str] | None = None
    tiers: frozenset[SlaTier] | None = None
    limits: Limits = NO_LIMITS
    expires_at: float | None = None
    revoked_at: float | None = None
    stops_at: float | None = None
    rotated_at: float | None = None
    previous_digest: str = field(default="", repr=False)
    previous_until: float = 0.0
    revision: int = 0

    def matches(self, text: str, now: float) -> bool:
        """Whether this is the key; takes the same time whether it is or not."""
        found = digest(text)
        is_this = hmac.compare_digest(self.digest, found)
        was_this = hmac.compare_digest(self.previous_digest, found)
        return is_this or (was_this and now < self.previous_until)

    def is_good(self, now: float) -> bool:
        """Whether it still opens anything."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return False
        return self.expires_at is None or now < self.expires_at

    def rotated(self, text: str, now: float, grace_s: float) -> ApiKey:
        """The key with a new secret; the one it had is good for a while yet, none before that."""
        return replace(
            self,
            digest=digest(text),
            rotated_at=now,
            previous_digest=self.digest,
            previous_until=now + grace_s,
            revision=self.revision + 1,
        )

    def revoked(self, now: float) -> ApiKey:
        """The key, which opens nothing any more, with either secret."""
        return replace(self, revoked_at=now, revision=self.revision + 1)

    def stopped(self, now: float) -> ApiKey:
        """The key, revoked if it was not, with all that was begun with it."""
        return replace(
            self, revoked_at=self.revoked_at or now, stops_at=now, revision=self.revision + 1
        )

    def principal(self, tenant: Tenant) -> Principal:
        """Whom its bearer acts for."""
        return Principal(
            self.tenant, self.id, self.scopes, self.models, self.tiers, self.limits, tenant.limits
        )
