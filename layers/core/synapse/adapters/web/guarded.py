"""Connections to public addresses only, each made to the very address that was judged.

A name is resolved once for a connection; all that it resolves to is judged, and one of those
addresses is connected to. So a name that resolves otherwise a moment later (DNS rebinding) leads
nowhere else. TLS still proves the name: the certificate must be the host's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpcore

from synapse.domain.webhook_url import refusal_of_any

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host. Raises OSError if there are none to be had."""


class NotPublic(Exception):
    """A host resolves to an address that nothing is sent to."""


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """See the module. `is_allowed` says that the operator allows the place, whatever it is."""

    def __init__(
        self,
        *,
        is_allowed: bool,
        resolve: Resolve,
        inner: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._is_allowed = is_allowed
        self._resolve = resolve
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to one of the host's addresses, all of which are public.

        Raises:
            NotPublic: one of them is not.
            ConnectError: httpcore's, if none of them can be reached.
        """
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError("the host's name cannot be resolved") from error
        refusal = None if self._is_allowed else refusal_of_any(addresses)
        if refusal is not None:
            raise NotPublic(refusal)
        failure: Exception = httpcore.ConnectError("the host has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
