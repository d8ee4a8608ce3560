"""Pools that grow from nothing and shrink back to it, with real workers."""

from __future__ import annotations

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.one_machine.fleets import EchoPool, FleetServer, Traffic, until
from tests.e2e.one_machine.running import alive, finished, submit
from tests.patience import PATIENCE_S

BURST = EchoPool("burst", price=0.1, delay_ms=5, slots=32, least=0, idle_after_s=1.0)
BURST_JOBS = 60
CALLERS = 20

SCALING = {
    "beat_every_s": 0.2,
    "ping_every_s": 0.5,
    "scale_every_s": 0.1,
    "scale_in_after_s": 2.0,
    "cooldown_s": 1.0,
}


def _asked(url: str, number: int) -> dict[str, Any]:
    body = {"model": "echo", "prompt": f"caller {number}"}
    response = httpx.post(f"{url}/v1/completions", json=body, timeout=PATIENCE_S)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_pool_at_zero_takes_a_burst_and_goes_back_to_zero(
    tmp_path: Path, client: httpx.Client
) -> None:
    fleet = FleetServer(tmp_path, BURST, times=SCALING)
    with contextlib.closing(fleet):
        fleet.start()
        assert fleet.tritons() == []

        accepted = client.post(f"{fleet.url}/async-infer", json={"model": "echo", "prompt": "0"})
        first = accepted.json()
        with ThreadPoolExecutor(CALLERS) as callers:
            answers = callers.map(lambda n: _asked(fleet.url, n), range(CALLERS))
            ids = [first["jobId"]] + [
                submit(client, fleet.url, str(n)) for n in range(1, BURST_JOBS)
            ]
            until(lambda: fleet.tritons("burst"), why="the pool did not grow")
            [triton] = fleet.tritons("burst")
            jobs = [finished(client, fleet.url, job_id) for job_id in ids]
            texts = [answer["choices"][0]["text"] for answer in answers]

        assert first["cold_start"] is True
        assert first["estimated_wait_time"] > 0
        assert [job["result"]["text"] for job in jobs] == [str(n) for n in range(BURST_JOBS)]
        assert texts == [f"caller {n}" for n in range(CALLERS)]
        assert fleet.gauge("synapse_cold_start_seconds_count") >= 1
        # Where the machine stood still in between, another one may have come meanwhile.
        until(
            lambda: not alive([triton]) and fleet.tritons() == [],
            why="the pool did not go back to zero",
        )
        assert fleet.gauge("synapse_pool_workers", pool="burst", state="desired") == 0
        assert client.get(f"{fleet.url}/health").json() == {
            "status": "ok",
            "version": client.get(f"{fleet.url}/health").json()["version"],
            "workers": [],
            "detail": "",
        }
        assert fleet.stop() == 0


def test_a_pool_grows_with_the_work_and_shrinks_without_losing_any(tmp_path: Path) -> None:
    # One worker does 7 jobs a second: fewer than come, however slow the machine sends them.
    pool = EchoPool("wide", price=0.1, delay_ms=300, slots=2, least=1, most=2, idle_after_s=1.0)
    fleet = FleetServer(tmp_path, pool, times=SCALING)
    with contextlib.closing(fleet):
        fleet.start()
        assert len(fleet.tritons()) == 1

        with Traffic(fleet, "silver", every_s=0.05) as burst:
            until(lambda: len(fleet.tritons()) == 2, why="the pool did not grow")
            until(lambda: len(burst.workers()) > 1, why="one worker did it all")
        with Traffic(fleet, "bronze", every_s=0.4) as trickle:
            until(lambda: len(fleet.tritons()) == 1, why="the pool did not shrink")

        assert burst.states() == {"COMPLETED": len(burst.ended)}
        assert trickle.states() == {"COMPLETED": len(trickle.ended)}
        assert "broken off" not in fleet.log.read_text()


def test_a_killed_server_leaves_no_worker_of_any_pool(tmp_path: Path) -> None:
    pools = [EchoPool(name, price=0.1, delay_ms=5) for name in ("one", "two")]
    fleet = FleetServer(tmp_path, *pools, times=SCALING)
    with contextlib.closing(fleet):
        fleet.start()
        children = fleet.descendants()
        assert len(fleet.tritons()) == 2

        fleet.kill()

        until(lambda: not alive(children))


def test_a_worker_that_crashes_in_a_loop_is_taken_out_and_others_serve(
    tmp_path: Path, client: httpx.Client
) -> None:
    pools = [EchoPool(name, price=0.1, delay_ms=5) for name in ("frail", "sound")]
    fleet = FleetServer(tmp_path, *pools, times=SCALING)
    with contextlib.closing(fleet):
        fleet.start()

        def kill_frail() -> bool:
            pids = fleet.tritons("frail")
            if "worker frail-1 is taken out" in fleet.log.read_text():
                return True  # so that they may be its successor's
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return False

        until(kill_frail, every_s=0.02)
        job = finished(client, fleet.url, submit(client, fleet.url, "still here"))
        assert (job["status"], job["pool"]) == ("COMPLETED", "sound")

        def ready() -> dict[str, str]:
            workers = client.get(f"{fleet.url}/api/admin/workers").json()["data"]
            return {each["id"]: each["pool"] for each in workers if each["state"] == "READY"}

        # A successor whose own start fails has one in its turn.
        until(
            lambda: sorted(ready().values()) == ["frail", "sound"],
            why=lambda: f"ready are {ready()}: {fleet.log.read_text()}",
        )
        assert "frail-1" not in ready()
