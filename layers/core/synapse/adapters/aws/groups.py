"""Groups of messages, which SQS keeps from crowding out each other."""

from __future__ import annotations

import re
from hashlib import sha256

GROUP = re.compile(r"[!-~]{1,128}")


def group_of(tenant: str) -> str:
    """The name of a tenant's group, which may have no other signs than these."""
    return tenant if GROUP.fullmatch(tenant) else sha256(tenant.encode()).hexdigest()
