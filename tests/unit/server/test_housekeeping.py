"""Timers of one machine: whatever fails is tried again, and told of in proportion."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

import pytest

from synapse.domain.errors import Unavailable
from synapse_server.housekeeping import every

FULL, LOCKED = Unavailable("storage: the disk is full"), Unavailable("storage: it is locked")


async def done(*outcomes: Exception | None) -> None:
    """Have it done so often, with these outcomes."""
    left, over = list(outcomes), asyncio.Event()

    async def work() -> None:
        if not left:
            over.set()
            await asyncio.Event().wait()
        outcome = left.pop(0)
        if outcome is not None:
            raise outcome

    timer = asyncio.create_task(every(0.0, "sweep", work))
    await over.wait()
    timer.cancel()
    with suppress(asyncio.CancelledError):
        await timer


def told(records: Sequence[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records]


async def test_a_full_disk_is_told_of_once_in_a_line_until_it_goes_well_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "synapse_server.housekeeping")

    await done(FULL, FULL, FULL, LOCKED, None, None, FULL)

    full = "sweep failed: storage: the disk is full; it is tried again every 0 s"
    locked = "sweep failed: storage: it is locked; it is tried again every 0 s"
    assert told(caplog.records) == [full, locked, "sweep goes well again", full]
    assert not any(record.exc_info for record in caplog.records)


async def test_a_fault_of_ours_is_told_of_each_time_with_where_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await done(ValueError("a bug"), ValueError("a bug"), None)

    assert told(caplog.records) == ["sweep failed; it is tried again in 0 s"] * 2
    assert all(record.exc_info for record in caplog.records)
