"""FastAPI in front of Celery and Redis: the usual way to durable jobs in Python.

`POST /jobs` puts a task into Redis and answers with its id, `GET /jobs/{id}` waits for its result.
Redis appends to its file each second, as Celery's and Redis' documentation have it for durability;
the worker acknowledges late, so that a task whose worker died is run again.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from celery import Celery, signals
from engines import Run, load
from fastapi import FastAPI
from pydantic import BaseModel

REDIS = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379")
POLL_S = 0.005

celery = Celery("bench", broker=f"{REDIS}/0", backend=f"{REDIS}/1")
celery.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    task_ignore_result=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 30},
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


app = FastAPI()


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
    found = celery.AsyncResult(job_id)
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    pause_s = POLL_S
    while loop.time() < until:
        if found.ready():
            return {"status": "done", "output": found.result}
        await asyncio.sleep(pause_s)
        pause_s = min(0.1, 2 * pause_s)
    return {"status": "pending"}
