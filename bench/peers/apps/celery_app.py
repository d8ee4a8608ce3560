"""FastAPI in front of Celery and Redis: the usual way to durable jobs in Python.

`POST /jobs` puts a task into Redis and answers with its id, `GET /jobs/{id}` waits for its result.
The worker acknowledges late, so that a task whose worker died is run again. Results are not polled
for: Celery's backend publishes each where it stores it, and one subscription hears of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from celery import Celery, signals
from engines import Run, load, workload
from fastapi import FastAPI
from pydantic import BaseModel
from redis.asyncio import BlockingConnectionPool, Redis

REDIS = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379")
RESULT = "celery-task-meta-"
"""What the names of results begin with in Redis, and those of the channels they are told on."""

CONNECTIONS = 32
"""To Redis; who comes when all are taken waits for one, instead of being refused."""

PREFETCH = 1 if workload() == "generate" else 4
"""Tasks a thread reserves: for long ones Celery's documentation advises 1; 4 is the default."""

celery = Celery("bench", broker=f"{REDIS}/0", backend=f"{REDIS}/1")
celery.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=PREFETCH,
    task_ignore_result=False,
    broker_connection_retry_on_startup=True,
    # What a dead worker had taken is looked for every 10 s, Kombu's interval, instead of every
    # tenth time: it advises that with a low visibility timeout.
    broker_transport_options={"visibility_timeout": 30, "unacked_restore_throttle": 1},
)

_run: Run | None = None


@signals.worker_init.connect
def _load(**_: object) -> None:
    """Load the engine once, in the worker: its threads share it."""
    global _run
    _run = load()


@celery.task(name="run")
def run(text: str) -> Any:
    """One request."""
    assert _run is not None
    return _run([text])[0]


class Job(BaseModel):
    """A request."""

    text: str


class Results:
    """Results as they come, for whoever waits for one."""

    def __init__(self) -> None:
        pool = BlockingConnectionPool.from_url(f"{REDIS}/1", max_connections=CONNECTIONS)
        self._redis = Redis(connection_pool=pool)
        self._awaited: dict[str, asyncio.Future[Any]] = {}

    async def listen(self) -> None:
        """Hear of results until cancelled."""
        async with self._redis.pubsub() as channel:
            await channel.psubscribe(f"{RESULT}*")
            async for message in channel.listen():
                if message["type"] == "pmessage":
                    awaited = self._awaited.get(message["channel"].decode().removeprefix(RESULT))
                    if awaited is not None and not awaited.done():
                        awaited.set_result(json.loads(message["data"])["result"])

    async def of(self, job_id: str, wait_s: float) -> Any:
        """A job's result.

        Raises:
            TimeoutError: it did not come in that time.
        """
        awaited = self._awaited.setdefault(job_id, asyncio.get_running_loop().create_future())
        try:
            # Asked for after the future is there: what comes in between is not missed.
            stored = await self._redis.get(f"{RESULT}{job_id}")
            if stored is not None:
                return json.loads(stored)["result"]
            return await asyncio.wait_for(awaited, wait_s)
        finally:
            self._awaited.pop(job_id, None)


@contextlib.asynccontextmanager
async def _listening(_: FastAPI) -> AsyncIterator[None]:
    listening = asyncio.create_task(results.listen())
    yield
    listening.cancel()


results = Results()
app = FastAPI(lifespan=_listening)


@app.get("/health")
async def health() -> dict[str, str]:
    """Whether the front is up."""
    return {"status": "ok"}


@app.post("/jobs", status_code=202)
async def submit(job: Job) -> dict[str, str]:
    """Accept a job. Celery blocks for a moment, and its client to Redis is for one thread only."""
    result = run.delay(job.text)
    return {"id": result.id}


@app.get("/jobs/{job_id}")
async def result(job_id: str, wait: float = 60.0) -> dict[str, Any]:
    """A job's result, waited for."""
    try:
        return {"status": "done", "output": await results.of(job_id, wait)}
    except TimeoutError:
        return {"status": "pending"}
