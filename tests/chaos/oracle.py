"""Knows every job that was accepted and what must have come of it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx

from synapse.domain.job import JobState

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
RETRY_S = 0.2
FINAL = {state.value for state in JobState if state.is_final}


class Violation(AssertionError):
    """Something that was promised did not hold."""


class Kind(StrEnum):
    """What is asked of a job."""

    PLAIN = "plain"
    SENT_TWICE = "sent twice"
    CANCELLED = "cancelled"
    BRIEF = "brief"


ENDS = {
    Kind.PLAIN: {"COMPLETED", "FAILED"},
    Kind.SENT_TWICE: {"COMPLETED", "FAILED"},
    Kind.CANCELLED: {"COMPLETED", "CANCELLED", "FAILED"},
    Kind.BRIEF: {"COMPLETED", "EXPIRED", "FAILED"},
}
"""How each may end. FAILED only for one reason: three workers were lost under it."""

LOST_TOO_OFTEN = "worker_lost"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that the server said it has taken."""

    id: str
    kind: Kind
    prompt: str
    timeout_s: float


@dataclass
class Oracle:
    """Sends jobs with keys, so that each is accepted once however often it has to be sent."""

    url: str
    database: Path
    random: random.Random
    accepted: list[Accepted] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    resent: int = 0
    _checked: int = 0
    _sent: int = 0

    async def keep_sending(self, client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        """One caller, who sends job after job, whatever happens to the server."""
        while not stop.is_set():
            kind = self.random.choices(list(Kind), (6, 2, 1, 1))[0]
            job = await self._accept(client, kind)
            self.accepted.append(job)
            if kind is Kind.SENT_TWICE:
                again = await self._send(client, job.prompt, job.timeout_s)
                if again != job.id:
                    raise Violation(f"one key, two jobs: {job.id} and {again}")
            if kind is Kind.CANCELLED:
                await self._cancel(client, job.id)
            await asyncio.sleep(self.random.uniform(0.0, 0.02))

    async def check(self, client: httpx.AsyncClient, patience_s: float) -> None:
        """Wait until all that was accepted has ended, and look at every answer.

        Raises:
            Violation: a job has not ended, or ended with what it may not.
        """
        new = self.accepted[self._checked :]
        deadline = time.monotonic() + patience_s
        for job in new:
            body = await self._ended(client, job, deadline)
            self._judge(job, body)
            self.ends[body["status"]] += 1
        self._checked = len(self.accepted)
        await self._counters_add_up(client)
        self._records_add_up()

    def _judge(self, job: Accepted, body: dict[str, Any]) -> None:
        status = body["status"]
        if status not in ENDS[job.kind]:
            raise Violation(f"a {job.kind.value} job ended {status}: {body}")
        if status == "FAILED" and body["error"]["code"] != LOST_TOO_OFTEN:
            raise Violation(f"job {job.id} failed without need: {body['error']}")
        if status == "COMPLETED" and body["result"]["text"] != job.prompt:
            raise Violation(f"job {job.id} has another's answer: {body['result']}")

    async def _counters_add_up(self, client: httpx.AsyncClient) -> None:
        """Every job is in the usage report once, however it ended."""
        deadline = time.monotonic() + 10.0
        while True:
            counted = await self._usage(client)
            if counted == len(self.accepted):
                return
            if counted > len(self.accepted) or time.monotonic() > deadline:
                raise Violation(f"{counted} jobs in the usage report of {len(self.accepted)}")
            await asyncio.sleep(RETRY_S)

    def _records_add_up(self) -> None:
        """One record for each job and each key, none of them open."""
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as connection:
            states = Counter(
                dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
            )
            [keys] = connection.execute("SELECT count(*) FROM idempotency").fetchone()
        if set(states) - FINAL or states.total() != len(self.accepted):
            raise Violation(f"records of {len(self.accepted)} jobs: {dict(states)}")
        if states != self.ends:
            raise Violation(f"records say {dict(states)}, answers said {dict(self.ends)}")
        if keys != len(self.accepted):
            raise Violation(f"{keys} keys of {len(self.accepted)} jobs")

    async def _accept(self, client: httpx.AsyncClient, kind: Kind) -> Accepted:
        self._sent += 1
        prompt = f"{self._sent} {' '.join(self.random.choices(WORDS, k=5))}"
        timeout_s = self.random.uniform(0.3, 2.0) if kind is Kind.BRIEF else 600.0
        return Accepted(await self._send(client, prompt, timeout_s), kind, prompt, timeout_s)

    async def _send(self, client: httpx.AsyncClient, prompt: str, timeout_s: float) -> str:
        """Send a job until it is accepted; its prompt begins with its number, which is its key."""
        body = {"model": "echo", "prompt": prompt, "timeout": timeout_s}
        while True:
            try:
                response = await client.post(
                    f"{self.url}/async-infer",
                    json=body,
                    headers={"Idempotency-Key": f"key-{prompt.split()[0]}"},
                )
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code == 202:
                return str(response.json()["jobId"])
            if response is not None and response.status_code not in (429, 503):
                raise Violation(f"refused with {response.status_code}: {response.text}")
            self.resent += 1
            await asyncio.sleep(RETRY_S)

    async def _cancel(self, client: httpx.AsyncClient, job_id: str) -> None:
        while True:
            try:
                response = await client.delete(f"{self.url}/results/{job_id}")
            except httpx.TransportError:
                await asyncio.sleep(RETRY_S)
                continue
            if response.status_code in (200, 409):
                return
            if response.status_code != 503:
                raise Violation(f"cancel answered {response.status_code}: {response.text}")
            await asyncio.sleep(RETRY_S)

    async def _ended(
        self, client: httpx.AsyncClient, job: Accepted, deadline: float
    ) -> dict[str, Any]:
        while time.monotonic() < deadline:
            try:
                response = await client.get(f"{self.url}/results/{job.id}", params={"wait": 5})
            except httpx.TransportError:
                await asyncio.sleep(RETRY_S)
                continue
            if response.status_code == 404:
                raise Violation(f"job {job.id} was accepted and is not there")
            if response.status_code == 200 and response.json()["status"] in FINAL:
                body: dict[str, Any] = response.json()
                return body
        raise Violation(f"job {job.id} ({job.kind.value}) has not ended")

    async def _usage(self, client: httpx.AsyncClient) -> int:
        response = await client.get(f"{self.url}/v1/usage")
        if response.status_code != 200:
            raise Violation(f"usage answered {response.status_code}: {response.text}")
        return int(response.json()["total"]["requests"])
