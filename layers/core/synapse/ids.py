"""Ids of jobs and batches."""

from __future__ import annotations

import secrets
import time


def new_id() -> str:
    """32 hexadecimal digits: 12 of the time in ms, 20 random.

    Ordered by time, so that new records lie side by side in an index; not to be guessed.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
