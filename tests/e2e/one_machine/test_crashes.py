"""Nothing accepted is lost and nothing ends twice, whoever is killed and whenever."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from tests.e2e.one_machine.running import Server, finished, submit
from tests.patience import PATIENCE_S

LLM = "smollm2-135m-instruct"
JOBS = 200
LLM_JOBS = 80
"""When something is killed in the middle, all 32 slots of the engine are taken and as many wait."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with the language model, which takes seconds to load; each test leaves it well."""
    server = Server(tmp_path_factory.mktemp("crashes") / "data", LLM)
    server.start()
    yield server
    server.close()


def _submit_all(client: httpx.Client, server: Server) -> list[str]:
    parameters = {"max_tokens": 4, "temperature": 0, "ignore_eos": True}
    return [
        submit(client, server.url, f"Job {n}:", model=LLM, parameters=parameters)
        for n in range(LLM_JOBS)
    ]


def _ended(client: httpx.Client, server: Server, ids: list[str]) -> Counter[str]:
    states: Counter[str] = Counter()
    for job_id in ids:
        done = finished(client, server.url, job_id)
        states[done["status"]] += 1
        if done["status"] == "FAILED":
            assert done["error"]["message"]
    return states


def _until_ended(client: httpx.Client, server: Server, count: float) -> None:
    """Wait until the server has completed so many jobs: then it is in the middle of them."""
    deadline = time.monotonic() + PATIENCE_S
    while _ended_so_far(client, server) < count:
        assert time.monotonic() < deadline, "no job ended"
        time.sleep(0.05)


def _ended_so_far(client: httpx.Client, server: Server) -> float:
    """How many jobs have ended since the server was started."""
    lines = client.get(f"{server.url}/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("synapse_jobs_ended_total{")]
    return sum(float(line.split()[-1]) for line in counts)


def test_kill_9_of_the_server_loses_none_of_80_jobs(server: Server, client: httpx.Client) -> None:
    before = _ended_so_far(client, server)
    ids = _submit_all(client, server)
    _until_ended(client, server, before + 10)

    server.kill()
    server.start()

    assert _ended(client, server, ids) == {"COMPLETED": LLM_JOBS}


def test_kill_9_of_triton_loses_none_of_80_jobs(server: Server, client: httpx.Client) -> None:
    before = _ended_so_far(client, server)
    ids = _submit_all(client, server)
    _until_ended(client, server, before + 10)

    os.kill(_triton(server), signal.SIGKILL)

    assert _ended(client, server, ids) == {"COMPLETED": LLM_JOBS}


def test_a_clean_stop_in_the_middle_finishes_after_the_next_start(
    server: Server, client: httpx.Client
) -> None:
    ids = _submit_all(client, server)

    assert server.stop() == 0
    server.start()

    assert _ended(client, server, ids) == {"COMPLETED": LLM_JOBS}


def test_no_job_is_completed_twice(new_server: Callable[..., Server], client: httpx.Client) -> None:
    server = new_server("echo")
    server.start()
    ids = [submit(client, server.url, f"p{n}") for n in range(JOBS)]
    server.kill()
    server.start()
    first = {job_id: finished(client, server.url, job_id) for job_id in ids}

    server.kill()
    server.start()
    second = {job_id: finished(client, server.url, job_id) for job_id in ids}

    assert first == second
    for number, job_id in enumerate(ids):
        assert first[job_id]["result"]["text"] == f"p{number}"


async def test_a_thousand_submissions_at_once_are_all_answered(
    new_server: Callable[..., Server],
) -> None:
    server = new_server("echo")
    server.start()
    # httpx looks through all its connections for each request: of a thousand, for most of a minute.
    connections = aiohttp.TCPConnector(limit=1000)

    async with aiohttp.ClientSession(server.url, connector=connections) as client:

        async def one(number: int) -> bool:
            body = {"model": "echo", "prompt": f"burst {number}"}
            async with client.post("/async-infer", json=body) as accepted:
                assert accepted.status == 202, await accepted.text()
                job_id = (await accepted.json())["jobId"]
            async with client.get(f"/results/{job_id}", params={"wait": 60}) as answer:
                done = await answer.json()
            return bool(done["result"]["text"] == f"burst {number}")

        answers = await asyncio.gather(*(one(number) for number in range(1000)))

    assert all(answers)
    assert _states(server.data_dir) == {"COMPLETED": 1000}


def _triton(server: Server) -> int:
    [pid] = [
        pid
        for pid in server.descendants()
        if Path(f"/proc/{pid}/comm").read_text().strip() == "tritonserver"
    ]
    return pid


def _states(data_dir: Path) -> Counter[str]:
    """The states of all jobs, read from the records themselves."""
    with sqlite3.connect(f"file:{data_dir / 'jobs.db'}?mode=ro", uri=True) as connection:
        return Counter(state for (state,) in connection.execute("SELECT state FROM jobs"))
