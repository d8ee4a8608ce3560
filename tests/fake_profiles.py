"""Profiles in a dict."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.domain.profile import Profile


class MemoryProfileStore:
    """The last profile of each (model, version, pool)."""

    def __init__(self, *profiles: Profile) -> None:
        self._known = {_key(profile): profile for profile in profiles}

    async def profile(self, model: str, version: str, pool: str) -> Profile | None:
        return self._known.get((model, version, pool))

    async def profiles(self) -> Sequence[Profile]:
        return [self._known[key] for key in sorted(self._known)]

    async def keep(self, profile: Profile) -> None:
        known = self._known.get(_key(profile))
        if known is None or known.measured_at <= profile.measured_at:
            self._known[_key(profile)] = profile


def _key(profile: Profile) -> tuple[str, str, str]:
    return profile.model, profile.version, profile.pool
