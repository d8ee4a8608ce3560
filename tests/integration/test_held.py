"""A held submission under a real uvicorn: its client goes, and nothing but its job stays."""

from __future__ import annotations

import asyncio
import json

from synapse.api.asgi import AsgiApp
from synapse.domain.job import JobState
from tests.patience import PATIENCE_S
from tests.serving import serving
from tests.unit.api.calls import api_of
from tests.unit.application.world import World


async def test_who_hangs_up_is_waited_for_no_longer_and_the_job_goes_on() -> None:
    world = World()
    async with serving(AsgiApp(api_of(world, max_wait_s=3600))) as (port, _):
        before = len(asyncio.all_tasks())
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"model": "echo", "prompt": "hello"})
        head = f"POST /infer?wait=3600 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\n\r\n{body}".encode())
        async with asyncio.timeout(PATIENCE_S):
            while not world.store.jobs:
                await asyncio.sleep(0.01)
            assert len(asyncio.all_tasks()) > before

            writer.transport.abort()
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0.01)
        await world.work()

    assert list(world.states().values()) == [JobState.COMPLETED]
