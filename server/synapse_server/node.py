"""Wiring of the one-machine target: the one place where its adapters meet the use cases."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

from synapse.domain.retry import RetryPolicy
from synapse_server.config import ServerConfig

MAX_WAIT_S = 300.0
"""The longest a request is held by `?wait=`."""

PURGE_EVERY_S = 3600.0
RETRY = RetryPolicy(max_attempts=4, base_s=0.2, max_s=3.0)


class Node:
    """A whole Synapse in one process: `async with Node(config) as node:` serves jobs."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.specs = _specs(config)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the records, start the worker, take up what was left, and dispatch.

        Raises:
            StartError: something cannot be opened or started; nothing is left running.
        """
        async with contextlib.AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain, stop the worker, close the records."""
        await self._stack.aclose()
