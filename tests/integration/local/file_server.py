"""A process that serves files as the one-machine server does, and nothing else.

It says the port on standard output once it listens.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn

from synapse.adapters.local.database import Database
from synapse.api.asgi import AsgiApp
from synapse.api.openai.files import add_file_routes
from synapse.api.openai.uploads import add_upload_routes
from synapse.api.resolver import Api
from synapse_server.file_parts import FileParts


def api_over(parts: FileParts) -> Api:
    """The routes of files, over these parts."""
    services: Any = SimpleNamespace(files=parts.files, uploads=parts.uploads, file_link=parts.link)
    api = Api()
    add_file_routes(api, services)
    add_upload_routes(api, services)
    return api


async def main(folder: Path) -> None:
    database = Database.open(folder / "jobs.db")
    parts = FileParts(database, folder / "files")
    await parts.recover()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(AsgiApp(api_over(parts)), lifespan="off", log_level="warning")
    print(listener.getsockname()[1], flush=True)  # noqa: T201
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
