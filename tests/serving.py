"""A real uvicorn in the test's own loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from synapse.api.asgi import AsgiApp
from tests.patience import PATIENCE_S


@asynccontextmanager
async def serving(
    app: AsgiApp, grace_s: int = 1, **options: Any
) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    """The port and the server; `grace_s` is what open requests have at its end."""
    # Said in full, as `synapse serve` does: else asyncio leaves Nagle's algorithm on.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level="error",
            timeout_graceful_shutdown=grace_s,
            **options,
        )
        server = uvicorn.Server(config)
        serve = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1], server
        finally:
            server.should_exit = True
            await asyncio.wait_for(serve, PATIENCE_S)
