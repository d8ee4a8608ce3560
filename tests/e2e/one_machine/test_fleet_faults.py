"""Two pools of real workers, one of which is harmed: traffic moves, jobs finish, it comes back."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.one_machine.fleets import (
    QUICK,
    EchoPool,
    FleetServer,
    Traffic,
    stop_process,
    until,
    watched,
)
from tests.e2e.one_machine.running import finished, submit, wait_gone
from tests.patience import PATIENCE_S

CHEAP = EchoPool("cheap", price=0.1, delay_ms=30)
DEAR = EchoPool("dear", price=1.0, delay_ms=30)

TIMES = {**QUICK, "hang_timeout_s": 6.0}
"""Nobody is taken to hang because the machine stood still for a few seconds."""

NEVER_HUNG = {**QUICK, "hang_timeout_s": PATIENCE_S}
"""A worker that is stopped is dead to all, and stays as it is however late that is seen."""

HISTORY = 40
"""Jobs before any harm is done: by them a worker's own pace is known."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    """Two pools; every test leaves both well."""
    server = FleetServer(tmp_path_factory.mktemp("fleet"), CHEAP, DEAR, times=TIMES)
    server.start()
    yield server
    server.close()


@pytest.fixture
def traffic(fleet: FleetServer) -> Iterator[Traffic]:
    """Bronze jobs, which go to the cheap pool for as long as nothing is wrong with it."""
    with Traffic(fleet, "bronze") as traffic:
        until(lambda: traffic.pools()["cheap"] >= HISTORY)
        yield traffic


def _all_finished(traffic: Traffic) -> None:
    traffic.stop()
    assert traffic.states() == {"COMPLETED": len(traffic.ended)}
    assert [job["result"]["text"] for job in traffic.ended] == [
        f"job {n}" for n in range(len(traffic.ended))
    ]


def _health(fleet: FleetServer) -> tuple[str, dict[str, bool]]:
    body = httpx.get(f"{fleet.url}/health").json()
    return body["status"], {seen["pool"]: seen["healthy"] for seen in body["workers"]}


def test_a_worker_that_is_killed_is_replaced_and_its_jobs_are_done(
    fleet: FleetServer, traffic: Traffic
) -> None:
    [killed] = fleet.tritons("cheap")

    os.kill(killed, signal.SIGKILL)
    traffic.until_in("dear")
    traffic.until_in("cheap")

    _all_finished(traffic)
    [born] = fleet.tritons("cheap")
    assert born != killed


def test_a_worker_that_hangs_is_dead_to_all_and_started_again(
    fleet: FleetServer, traffic: Traffic
) -> None:
    [hung] = fleet.tritons("cheap")

    with (
        watched(lambda: _health(fleet)) as health,
        watched(lambda: fleet.gauge("synapse_workers", pool="cheap")) as workers,
    ):
        stop_process(hung)
        traffic.until_in("dear")
        until(lambda: ("degraded", {"cheap": False, "dear": True}) in health)
        until(lambda: 0 in workers)
        traffic.until_in("cheap")

    _all_finished(traffic)
    assert not wait_gone([hung])
    until(lambda: _health(fleet) == ("ok", {"cheap": True, "dear": True}))


def test_callers_on_the_line_are_sent_on_when_their_worker_hangs(fleet: FleetServer) -> None:
    [hung] = fleet.tritons("cheap")

    def ask(number: int) -> str:
        # Flex goes where bronze goes: to the cheap pool.
        body = {"model": "echo", "prompt": f"caller {number}", "service_tier": "flex"}
        response = httpx.post(f"{fleet.url}/v1/completions", json=body, timeout=PATIENCE_S)
        assert response.status_code == 200, response.text
        return str(response.json()["choices"][0]["text"])

    with ThreadPoolExecutor(4) as callers:
        before = list(callers.map(ask, range(8)))
        stop_process(hung)
        after = list(callers.map(ask, range(8, 24)))

    assert before + after == [f"caller {number}" for number in range(24)]
    until(lambda: _health(fleet) == ("ok", {"cheap": True, "dear": True}))


def test_a_worker_that_only_paused_is_taken_back_as_it_is(tmp_path: Path) -> None:
    fleet = FleetServer(tmp_path, CHEAP, DEAR, times=NEVER_HUNG)
    with contextlib.closing(fleet):
        fleet.start()
        with Traffic(fleet, "bronze") as traffic:
            until(lambda: traffic.pools()["cheap"] >= HISTORY)
            [paused] = fleet.tritons("cheap")

            stop_process(paused)
            traffic.until_in("dear")
            os.kill(paused, signal.SIGCONT)
            traffic.until_in("cheap")

            _all_finished(traffic)
        assert fleet.tritons("cheap") == [paused]


def test_a_worker_that_answers_errors_is_left_alone_until_it_is_well(
    fleet: FleetServer, traffic: Traffic
) -> None:
    with fleet.disturbed("cheap", error="engine failed: out of order"):
        until(lambda: fleet.gauge("synapse_breaker_open", pool="cheap") > 0)
        traffic.until_in("dear")
    traffic.until_in("cheap")

    _all_finished(traffic)


def test_a_worker_that_is_ten_times_too_slow_is_left_alone_until_it_is_well(
    fleet: FleetServer, traffic: Traffic
) -> None:
    with fleet.disturbed("cheap", slow_factor=10):
        traffic.until_in("dear")
        until(lambda: fleet.gauge("synapse_breaker_open", pool="cheap") > 0)
    traffic.until_in("cheap")

    _all_finished(traffic)
    assert fleet.gauge("synapse_breaker_open", pool="cheap") == 0


def test_with_its_pool_gone_a_request_falls_back_and_its_job_says_so(
    tmp_path: Path, client: httpx.Client
) -> None:
    fast = EchoPool("fast", price=1.0, delay_ms=1, accelerator="gpu")
    slow = EchoPool("slow", price=0.1, delay_ms=300)
    fleet = FleetServer(tmp_path, fast, slow, times=NEVER_HUNG)
    with contextlib.closing(fleet):
        fleet.start()

        def served_by(pool: str, worker: str) -> dict[str, Any] | None:
            job = finished(client, fleet.url, submit(client, fleet.url, "x", sla="silver"))
            assert job["status"] == "COMPLETED"
            return job if (job["pool"], job["worker"]) == (pool, worker) else None

        def promise_is_kept() -> bool:
            job = served_by("fast", "fast-1")
            return job is not None and job["routing"] is None

        until(promise_is_kept, every_s=0.02)

        stop_process(fleet.tritons("fast")[0])
        until(lambda: fleet.gauge("synapse_workers", pool="fast") == 0)
        fallen = served_by("slow", "slow-1")

        assert fallen is not None
        assert "no pool meets tier silver" in fallen["routing"]
