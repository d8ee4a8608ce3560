"""What only this machine can reach, and who may call there without being asked who they are.

A web page from anywhere runs on this machine too, in its browser. It can send requests to a
loopback address, and by a name that it has pointed there (DNS rebinding) also read the answers.
Browsers tell of both: by which name they came (Host), and whose page it is (Origin).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from synapse.domain.access import ANYONE, Principal
from synapse.domain.errors import Forbidden

if TYPE_CHECKING:
    from synapse.api.gate import Identify


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it; of names only the one that always means that."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def whoever_is_here(origins: Collection[str] = ()) -> Identify:
    """Asks nobody who they are; of web pages, only those of these origins and of this machine."""

    async def identify(event: Mapping[str, Any]) -> Principal:
        headers = event.get("headers") or {}
        host, origin = headers.get("host"), headers.get("origin")
        if host and not _is_here(f"//{host}"):
            raise _refused(f"host {host!r}")
        if origin and origin not in origins and not _is_here(origin):
            raise _refused(f"pages of {origin!r}")
        return ANYONE

    return identify


@lru_cache(maxsize=64)
def _is_here(address: str) -> bool:
    try:
        return is_loopback(urlsplit(address).hostname or "")
    except ValueError:
        return False


def _refused(whom: str) -> Forbidden:
    return Forbidden(
        f"without keys (SYNAPSE_AUTH=off) only this machine is served, not {whom}",
        code="not_from_here",
    )
