"""Receipts and usage of a real server: what was asked of it adds up, also after a crash."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.one_machine.fleets import CALM, EchoPool, FleetServer
from tests.e2e.one_machine.running import finished, submit
from tests.patience import PATIENCE_S

PRICED = EchoPool("priced", price=3.6, delay_ms=40, slots=4)
SLOT_S = 3.6 / 3600 / PRICED.slots
"""What a slot of the pool costs in a second."""

COLD = EchoPool("cold", price=3.6, delay_ms=5, slots=4, least=0)
JOBS = 40
REQUESTS = 30


def ask(url: str, number: int) -> httpx.Response:
    body = {"model": "echo", "prompt": f"caller {number}"}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer


def usage(client: httpx.Client, url: str, **query: str) -> dict[str, Any]:
    answer = client.get(f"{url}/v1/usage", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def usd_of(jobs: Sequence[Mapping[str, Any]], answers: Sequence[httpx.Response]) -> Decimal:
    of_jobs = (Decimal(repr(job["cost"]["total_usd"])) for job in jobs)
    of_answers = (Decimal(answer.headers["x-synapse-cost-usd"]) for answer in answers)
    return sum(of_jobs, Decimal()) + sum(of_answers, Decimal())


def test_the_report_is_what_the_receipts_add_up_to(tmp_path: Path, client: httpx.Client) -> None:
    fleet = FleetServer(tmp_path, PRICED, times=CALM)
    with contextlib.closing(fleet):
        fleet.start()
        up_since = time.monotonic() - 60  # as long as the start may have taken
        with ThreadPoolExecutor(8) as callers:
            answering = [callers.submit(ask, fleet.url, n) for n in range(REQUESTS)]
            ids = [submit(client, fleet.url, f"job {n}") for n in range(JOBS)]
            answers = [each.result() for each in answering]
            jobs = [finished(client, fleet.url, job_id) for job_id in ids]
        total = usage(client, fleet.url)["total"]
        worker_usd = (time.monotonic() - up_since) * SLOT_S * PRICED.slots

    for job in jobs:
        held_s = job["receipt"]["inference_ms"] / 1000
        assert held_s >= 0.04
        # What lies around the item is in the receipt's time, and paid by nobody.
        assert 0.04 <= job["cost"]["active_usd"] / SLOT_S <= 1.01 * held_s
        assert job["receipt"]["pool"] == "priced"
    used = [job["usage"] for job in jobs] + [answer.json()["usage"] for answer in answers]
    assert (total["requests"], total["errors"]) == (JOBS + REQUESTS, 0)
    for field in ("prompt_tokens", "completion_tokens"):
        assert total[field] == sum(each[field] for each in used)
    # To the picodollar, less what each receipt was rounded by.
    assert total["cost_usd"] == pytest.approx(float(usd_of(jobs, answers)), abs=1e-10)
    assert 0 < total["cost_usd"] <= worker_usd


def test_a_start_that_was_waited_for_is_told_as_cold(tmp_path: Path, client: httpx.Client) -> None:
    fleet = FleetServer(tmp_path, COLD, times=CALM)
    with contextlib.closing(fleet):
        fleet.start()
        first = ask(fleet.url, 1)
        second = ask(fleet.url, 2)

    assert float(first.headers["x-synapse-cold-ms"]) > 100
    assert float(first.headers["x-synapse-queue-ms"]) >= float(first.headers["x-synapse-cold-ms"])
    assert float(second.headers["x-synapse-cold-ms"]) == 0
    assert first.headers["x-synapse-worker"] == second.headers["x-synapse-worker"]


def test_what_jobs_used_is_counted_once_though_the_server_is_killed(
    tmp_path: Path, client: httpx.Client
) -> None:
    fleet = FleetServer(tmp_path, PRICED, times=CALM)
    with contextlib.closing(fleet):
        fleet.start()
        ids = [submit(client, fleet.url, f"job {n}") for n in range(JOBS)]
        for request in range(5):
            ask(fleet.url, request)
        time.sleep(3.0)  # by then it is on the disk
        on_the_line = usage(client, fleet.url)["total"]["requests"]
        ids += [submit(client, fleet.url, f"later {n}") for n in range(JOBS)]
        fleet.kill()
        fleet.start()
        jobs = [finished(client, fleet.url, job_id) for job_id in ids]
        total = usage(client, fleet.url)["total"]

    assert {job["status"] for job in jobs} == {"COMPLETED"}
    assert on_the_line > 5
    assert total["requests"] == 2 * JOBS + 5
    assert total["errors"] == 0
