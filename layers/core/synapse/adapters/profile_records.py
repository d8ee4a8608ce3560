"""A profile as JSON: what the stores of both targets keep of it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

from synapse.domain.profile import Profile

FIELDS = frozenset(field.name for field in fields(Profile))


def profile_to_json(profile: Profile) -> str:
    """The profile as one line of JSON."""
    return json.dumps(asdict(profile), ensure_ascii=False, separators=(",", ":"))


def profile_from_json(text: str) -> Profile:
    """The profile of that line; what an older or newer Synapse wrote besides is passed over."""
    found = json.loads(text)
    return Profile(**{name: value for name, value in found.items() if name in FIELDS})
