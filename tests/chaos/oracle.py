"""Knows every job that was accepted and what must have come of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx

from synapse.domain.api_key import key_id_of
from synapse.domain.job import JobState
from tests.chaos.books import Books

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

PUSH_S = 70.0
RESERVED_FOR_S = 120.0
"""How long after its deadline nothing is reserved for a job any more, whatever has happened."""

ACCEPTED_WITHIN_S = 300.0
"""Sent again and again, until every fault has been mended for long."""

BOOKS_PATIENCE_S = 60.0
"""Some of what is added up is written behind, and again if it could not be."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that the server said it has taken."""

    id: str
    kind: Kind
    prompt: str
    timeout_s: float
    api_key: str


async def _nothing(seconds: float) -> None:
    """On one machine time passes by itself."""


@dataclass(frozen=True)
class Asked:
    """The server that is asked, and how.

    Jobs are sent with `free` and with `metered`, a key with limits that nothing comes near to.
    `read` looks into the books. `again` are the statuses at which a request is sent again; `push`
    lets so many seconds pass while something is waited for.
    """

    url: str
    free: str
    metered: str
    read: Callable[[], Books]
    again: frozenset[int] = frozenset({429, 503})
    push: Callable[[float], Awaitable[None]] = _nothing
    pause_s: tuple[float, float] = (0.0, 0.02)
    timeout_s: float = 600.0


@dataclass
class Oracle:
    """Sends jobs with keys, so that each is accepted once however often it has to be sent."""

    server: Asked
    random: random.Random
    accepted: list[Accepted] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    resent: int = 0
    _cancelled: set[str] = field(default_factory=set)
    _checked: int = 0
    _sent: int = 0

    async def keep_sending(self, client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        """One caller, who sends job after job, whatever happens to the server."""
        while not stop.is_set():
            kind = self.random.choices(list(Kind), (6, 2, 1, 1))[0]
            job = await self._accept(client, kind)
            self.accepted.append(job)
            if kind is Kind.SENT_TWICE:
                again = await self._send(client, job.prompt, job.timeout_s, job.api_key)
                if again != job.id:
                    raise Violation(f"one key, two jobs: {job.id} and {again}")
            if kind is Kind.CANCELLED:
                await self._cancel(client, job)
            await asyncio.sleep(self.random.uniform(*self.server.pause_s))

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
        await self._books_add_up()
        books = await asyncio.to_thread(self.server.read)
        if (told := await self._usage(client)) != (counted := len(books.jobs)):
            raise Violation(f"{told} jobs in the usage report of {counted}")

    def _judge(self, job: Accepted, body: dict[str, Any]) -> None:
        status = body["status"]
        if status not in ENDS[job.kind]:
            raise Violation(f"a {job.kind.value} job ended {status}: {body}")
        if job.id in self._cancelled and status != "CANCELLED":
            raise Violation(f"job {job.id} was said to be cancelled, and ended {status}: {body}")
        if status == "FAILED" and body["error"]["code"] != LOST_TOO_OFTEN:
            raise Violation(f"job {job.id} failed without need: {body['error']}")
        if status == "COMPLETED" and body["result"]["text"] != job.prompt:
            raise Violation(f"job {job.id} has another's answer: {body['result']}")

    async def _books_add_up(self) -> None:
        """One record for each job and each key; what was used, reserved and spent is theirs."""
        deadline = time.monotonic() + BOOKS_PATIENCE_S
        while fault := self._fault_of(await asyncio.to_thread(self.server.read)):
            if time.monotonic() > deadline:
                raise Violation(fault)
            await self.server.push(self.server.timeout_s + RESERVED_FOR_S)
            await asyncio.sleep(RETRY_S)

    def _fault_of(self, books: Books) -> str:
        if books.states != self.ends:
            return f"records say {dict(books.states)}, answers said {dict(self.ends)}"
        if books.keys != len(self.accepted):
            return f"{books.keys} keys of {len(self.accepted)} jobs"
        return books.fault(str(key_id_of(self.server.metered)))

    async def _accept(self, client: httpx.AsyncClient, kind: Kind) -> Accepted:
        self._sent += 1
        prompt = f"{self._sent} {' '.join(self.random.choices(WORDS, k=5))}"
        timeout_s = self.random.uniform(0.3, 2.0) if kind is Kind.BRIEF else self.server.timeout_s
        # What a job has cost that was not run to its end only its worker knew.
        is_metered = kind in (Kind.PLAIN, Kind.SENT_TWICE) and self.random.random() < 0.5
        api_key = self.server.metered if is_metered else self.server.free
        job_id = await self._send(client, prompt, timeout_s, api_key)
        return Accepted(job_id, kind, prompt, timeout_s, api_key)

    async def _send(
        self, client: httpx.AsyncClient, prompt: str, timeout_s: float, api_key: str
    ) -> str:
        """Send a job until it is accepted; its prompt begins with its number, which is its key."""
        body = {"model": "echo", "prompt": prompt, "timeout": timeout_s}
        deadline, seen = time.monotonic() + ACCEPTED_WITHIN_S, "nobody answered"
        while time.monotonic() < deadline:
            try:
                response = await client.post(
                    f"{self.server.url}/async-infer",
                    json=body,
                    headers={"Idempotency-Key": f"key-{prompt.split()[0]}", **_by(api_key)},
                )
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code == 202:
                return str(response.json()["jobId"])
            if response is not None and response.status_code not in self.server.again:
                raise Violation(f"refused with {response.status_code}: {response.text}")
            seen = "nobody answered" if response is None else response.text
            self.resent += 1
            await asyncio.sleep(RETRY_S)
        raise Violation(f"no job was accepted for {ACCEPTED_WITHIN_S:g} s: {seen}")

    async def _cancel(self, client: httpx.AsyncClient, job: Accepted) -> None:
        """Cancel a job, or hear that it has ended otherwise; what was said is remembered."""
        url = f"{self.server.url}/results/{job.id}"
        while True:
            try:
                response = await client.delete(url, headers=_by(job.api_key))
            except httpx.TransportError:
                await asyncio.sleep(RETRY_S)
                continue
            if response.status_code == 200:
                self._cancelled.add(job.id)
            if response.status_code in (200, 409):
                return
            if response.status_code not in self.server.again:
                raise Violation(f"cancel answered {response.status_code}: {response.text}")
            await asyncio.sleep(RETRY_S)

    async def _ended(
        self, client: httpx.AsyncClient, job: Accepted, deadline: float
    ) -> dict[str, Any]:
        url, seen = f"{self.server.url}/results/{job.id}", "nobody could be asked"
        while time.monotonic() < deadline:
            try:
                response = await client.get(url, params={"wait": 5}, headers=_by(job.api_key))
            except httpx.TransportError:
                await asyncio.sleep(RETRY_S)
                continue
            if response.status_code == 404:
                raise Violation(f"job {job.id} was accepted and is not there")
            if response.status_code == 200 and response.json()["status"] in FINAL:
                body: dict[str, Any] = response.json()
                return body
            seen = f"{response.status_code}: {response.text}"
            await self.server.push(PUSH_S)
        states = await self._states(client)
        raise Violation(f"job {job.id} ({job.kind.value}) has not ended: {seen}; all: {states}")

    async def _states(self, client: httpx.AsyncClient) -> dict[str, int]:
        """How far the jobs are that are looked at: whether one is stuck, or everything."""
        states: Counter[str] = Counter()
        for job in self.accepted[self._checked :]:
            url = f"{self.server.url}/results/{job.id}"
            try:
                response = await client.get(url, headers=_by(job.api_key))
                states[response.json().get("status", f"{response.status_code}")] += 1
            except (httpx.TransportError, ValueError):
                states["no answer"] += 1
        return dict(states)

    async def _usage(self, client: httpx.AsyncClient) -> int:
        url = f"{self.server.url}/v1/usage"
        response = await client.get(url, headers=_by(self.server.free))
        if response.status_code != 200:
            raise Violation(f"usage answered {response.status_code}: {response.text}")
        return int(response.json()["total"]["requests"])


def _by(api_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"}
