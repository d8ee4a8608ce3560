"""Keeps Python's garbage collector from making everybody wait."""

from __future__ import annotations

import gc

COLLECT_EVERY = (10_000, 20, 20)
"""Python's own figures have everything that lives looked through each second under load."""


def collect_seldom() -> None:
    """Have the collector run less often, from the start on: what is loaded is no garbage."""
    gc.set_threshold(*COLLECT_EVERY)


def spare_pauses() -> None:
    """Have the collector leave alone what the start has made.

    Else all of it is looked through again and again: everybody waits for 60 ms meanwhile.
    """
    gc.collect()
    gc.freeze()
