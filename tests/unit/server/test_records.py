"""What one machine writes down, and what it tells of a disk that takes nothing."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
from pathlib import Path

import pytest

from synapse.adapters.local.database import Database
from synapse.domain.errors import Unavailable
from synapse_server.config import ServerConfig
from synapse_server.ground import JOBS
from synapse_server.pools_file import one_pool
from synapse_server.records import Records


def configured(data_dir: Path) -> ServerConfig:
    return ServerConfig(
        host="127.0.0.1",
        port=0,
        data_dir=data_dir,
        models=(),
        worker_venv=data_dir,
        fleet=one_pool(None),
    )


async def test_what_an_open_file_batch_has_written_is_not_taken_for_orphaned(
    tmp_path: Path,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        database = Database.open(tmp_path / JOBS)
        stack.push_async_callback(database.close)
        records = await Records.open(configured(tmp_path), [], [], database, stack)
        await records.blobs.put("batches/b/part", b"answers")
        made_at = time.time() - 30 * 86_400
        for path in (tmp_path / "blobs").glob("??/*"):
            os.utime(path, (made_at + 60, made_at + 60))

        await records.purge(batches_since=made_at)
        assert await records.blobs.get("batches/b/part") == b"answers"

        await records.purge(batches_since=math.inf)
        with pytest.raises(KeyError):
            await records.blobs.get("batches/b/part")


async def test_a_full_disk_is_told_wherever_it_was_met_until_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with contextlib.AsyncExitStack() as stack:
        database = Database.open(tmp_path / JOBS)
        stack.push_async_callback(database.close)
        records = await Records.open(config, [], [], database, stack)
        assert records.last_trouble() == ""

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            for blobs in (records.blobs, records.files.blobs):
                with pytest.raises(Unavailable):
                    await blobs.put("key", b"x")
            with pytest.raises(Unavailable):
                await records.try_again()
        full = "the disk is full: free some space"
        assert records.last_trouble() == f"storage: blobs: {full}; storage: files: {full}"

        await records.try_again()
        assert records.last_trouble() == ""
