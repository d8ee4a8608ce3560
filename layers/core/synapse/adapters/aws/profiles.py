"""Profiles in the registry table: `profile` / `<model>#<version>#<pool>`, an item each."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from synapse.adapters.aws.items import attributes, plain, put_latest, query_items
from synapse.adapters.profile_records import profile_from_json, profile_to_json
from synapse.domain.errors import Unavailable
from synapse.domain.profile import Profile
from synapse.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = logging.getLogger(__name__)

PROFILES_VALID_S = 60.0
"""How old a copy may be that requests are routed by: profiles change with models' versions."""

PARTITION = "profile"

Key = tuple[str, str, str]


class DynamoProfileStore:
    """The ProfileStore of the AWS target. They are few, so all are read at once, and kept."""

    def __init__(self, client: DynamoDBClient, table: str, *, clock: Clock = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._read_at = float("-inf")
        self._known: Mapping[Key, Profile] | None = None

    async def profile(self, model: str, version: str, pool: str) -> Profile | None:
        """See the port. Read once a minute, and not sooner where DynamoDB does not answer."""
        known, now = self._known, self._clock()
        if known is None or not 0 <= now - self._read_at < PROFILES_VALID_S:
            try:
                known = await self._read()
            except Unavailable:
                if known is None:
                    raise
                logger.warning("profiles not read; those known before count", exc_info=True)
            self._known, self._read_at = known, now
        return known.get((model, version, pool))

    async def profiles(self) -> Sequence[Profile]:
        """See the port."""
        known = await self._read()
        self._known, self._read_at = known, self._clock()
        return [known[key] for key in sorted(known)]

    async def keep(self, profile: Profile) -> None:
        """See the port."""
        item = {
            "pk": PARTITION,
            "sk": "#".join(_key(profile)),
            "measured_at": profile.measured_at,
            "doc": profile_to_json(profile),
        }
        await put_latest(self._client, self._table, item, "measured_at")
        self._read_at = float("-inf")

    async def _read(self) -> Mapping[Key, Profile]:
        items = query_items(
            self._client,
            self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues=attributes({":pk": PARTITION}),
        )
        found = [profile_from_json(plain(item)["doc"]) async for item in items]
        return {_key(profile): profile for profile in found}


def _key(profile: Profile) -> Key:
    return profile.model, profile.version, profile.pool
