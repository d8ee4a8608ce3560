"""Keeps Python's garbage collector from making everybody wait."""

from __future__ import annotations

import gc

COLLECT_EVERY = (10_000, 20, 20)
"""Python's own figures have everything that lives looked through each second under load."""


def collect_nothing() -> None:
    """Leave the collector out of a start, until `spare_pauses`: what is loaded is to stay."""
    gc.disable()


def spare_pauses() -> None:
    """Have the collector run from now on, and leave alone what the start has made.

    Else all of it is looked through again and again: everybody waits for 60 ms meanwhile. What is
    garbage in it stays as well: a quarter of a megabyte, for which a look would take as long.
    """
    gc.freeze()
    gc.set_threshold(*COLLECT_EVERY)
    gc.enable()
