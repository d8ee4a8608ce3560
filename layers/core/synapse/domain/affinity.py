"""Which worker of a pool takes a request: the least busy, or the one that knows its beginning.

Requests with the same affinity had better meet the same worker, whose prefix cache holds what
they have in common. Rendezvous hashing gives each affinity an order of all workers that changes
little when one comes or goes; a worker that is much busier than the least busy is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

BUSIER = 1.25
"""A worker may have so many times the mean of what is outstanding, the newcomer counted, before
an affinity is no reason any more to go there: bounded load (Mirrokni, Thorup, Zadimoghaddam)."""

PREFIX_BYTES = 1024
"""What of a prompt's beginning makes its affinity: enough to tell system messages apart."""


class Option(NamedTuple):
    """A worker that may be chosen.

    Those of the lowest `rank` are chosen from alone; `outstanding` items are under way there.
    """

    id: str
    rank: int
    outstanding: int


def chosen(options: Sequence[Option], affinity: str = "", never_busy: int = 0) -> Option:
    """The one to take an item more, the first of those that are alike. There must be an option.

    A worker with no more than `never_busy` items outstanding, the new one among them, is never
    too busy for an affinity.
    """
    best = min([option.rank for option in options])
    equals = [option for option in options if option.rank == best]
    if not affinity or len(equals) == 1:
        return min(equals, key=lambda option: option.outstanding)
    total = sum([option.outstanding for option in equals]) + 1
    # Never less than the mean rounded up, so that the least busy always is among them.
    most = max(never_busy, math.ceil(BUSIER * total / len(equals)))
    near = [option for option in equals if option.outstanding < most]
    return max(near, key=lambda option: weight(affinity, option.id))


def weight(affinity: str, worker_id: str) -> bytes:
    """How near a worker is to an affinity, by rendezvous hashing: the greater the nearer."""
    return blake2b(f"{worker_id}\0{affinity}".encode("utf-8", "replace"), digest_size=8).digest()


def prefix_affinity(text: str) -> str:
    """The affinity of a text by its beginning; that of no text is none."""
    beginning = text[:PREFIX_BYTES].encode("utf-8", "replace")[:PREFIX_BYTES]
    return blake2b(beginning, digest_size=8).hexdigest() if beginning else ""
