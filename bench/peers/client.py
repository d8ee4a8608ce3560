"""The client that asks every peer alike."""

from __future__ import annotations

import json
import random
from typing import Any, Self

import aiohttp

from bench.client import MAX_CONNECTIONS, Refused
from bench.peers.catalogue import Peer
from bench.texts import sentence

REQUEST_TIMEOUT_S = 120.0
MOST_WORDS = 24


class Client:
    """Asks one peer for one workload, over connections that are kept."""

    def __init__(self, peer: Peer, workload: str, url: str, seed: int = 7) -> None:
        self._peer, self._workload, self._url = peer, workload, url
        self._random = random.Random(seed)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        """Open the connections."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=2.0),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        await self._session.close()

    async def is_ready(self) -> bool:
        """Whether the peer says that it is up."""
        try:
            async with self._session.get(self._url + self._peer.ready) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            return False

    async def ask(self) -> None:
        """One request, until its answer is whole.

        Raises:
            Refused: the answer is none.
            ClientError, TimeoutError: there was none.
        """
        accepted = await self.submit()
        if self._peer.durable:
            await self.result(accepted)

    async def submit(self) -> dict[str, Any]:
        """Send a request; of a durable peer the answer is that the job was accepted."""
        ask = self._peer.ask(self._workload, sentence(self._random, MOST_WORDS))
        async with self._session.post(self._url + ask.path, json=ask.body) as response:
            text = await response.text()
            if response.status not in (200, 202):
                raise Refused(f"HTTP {response.status}")
        if not text:
            raise Refused("an empty answer")
        if not ask.holds:
            return {}
        body: dict[str, Any] = json.loads(text)
        if not body.get(ask.holds):
            raise Refused(f"no {ask.holds}")
        return body

    async def result(self, accepted: dict[str, Any]) -> None:
        """Wait for the result of an accepted job."""
        key, value = self._peer.done
        path = self._peer.result.format(accepted[self._peer.id_key])
        while True:
            async with self._session.get(self._url + path) as response:
                if response.status != 200:
                    raise Refused(f"HTTP {response.status}")
                body = await response.json()
            if body[key] == value:
                return
            if body[key] in ("FAILED", "CANCELLED", "EXPIRED"):
                raise Refused(f"job {body[key]}")
