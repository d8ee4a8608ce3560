"""Open files of this process: as many as it may have, and some that no connection takes.

Whoever takes the last one takes every model down: to look after a worker, its process and the
database need some themselves.
"""

from __future__ import annotations

import resource

MOST_FILES = 65_536
"""Some programs that a worker starts walk through all that they might have."""

RESERVED = 128
"""For databases, logs, files, workers and what is said to them."""


def allow_many_files() -> None:
    """Raise this process's soft limit, which is often 1,024, to what it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """How many clients may be connected at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_FILES
    return max(soft - RESERVED, soft // 4)
