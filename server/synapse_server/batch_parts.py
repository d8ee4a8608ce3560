"""Wiring of file batches on one machine."""

from __future__ import annotations

import math
import time

from synapse.adapters.local.database import Database
from synapse.adapters.local.file_batch_store import SqliteFileBatchStore
from synapse.api.openai.lines import OpenAiLines
from synapse.application.advance import Advancer
from synapse.application.file_batches import FileBatches
from synapse.application.files import Files
from synapse.application.line_tools import LineTools
from synapse.application.revocations import Revocations
from synapse.domain.file_batch import Pace
from synapse.ids import new_id
from synapse_server.batch_driver import BatchDriver, LocalFileBatchStarter

PACE = Pace(min_s=0.1, max_s=10.0)


class BatchParts:
    """The use cases of file batches over their records in the database."""

    def __init__(
        self, database: Database, files: Files, tools: LineTools, revocations: Revocations
    ) -> None:
        self._store = SqliteFileBatchStore(database, time.time)
        advancer = Advancer(self._store, files, tools, PACE, revocations)
        self.driver = BatchDriver(self._store, advancer)
        self.batches = FileBatches(
            self._store,
            files,
            LocalFileBatchStarter(self.driver),
            OpenAiLines.endpoints,
            time.time,
            new_id,
        )

    async def open_since(self) -> float:
        """When the oldest that is open was made (epoch seconds); if there is none, infinity."""
        return min((batch.created_at for batch in await self._store.open()), default=math.inf)

    async def purge(self) -> None:
        """Forget batches that ended long ago."""
        await self._store.purge()
