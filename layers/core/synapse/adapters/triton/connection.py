"""gRPC connections to engines: one for each address, made when needed, tried after a long rest."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import grpc
from grpc import ChannelConnectivity

from synapse.adapters.triton import failures
from synapse.adapters.triton.failures import Place
from synapse.adapters.triton.generated import messages
from synapse.adapters.triton.service import Service
from synapse.domain.errors import EngineError

IDLE_PROBE_AFTER_S = 30.0
"""A connection that rested this long may be dead without knowing it: a frozen Lambda hears no
goodbye, and load balancers forget connections silently. A call that dies on one would look like
a worker that died of it."""

KEEPALIVE_MS = 310_000
"""Triton hangs up on clients that ping more often than every five minutes."""


LINGER_S = 0.25
"""Before a call for which nobody waits any more is cancelled: most have their answer by then."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Limits of the connections; all addresses have the same."""

    connect_timeout_s: float = 2.0
    max_message_bytes: int = 64 * 1024 * 1024
    max_connections: int = 64


def is_being_cancelled() -> bool:
    """Whether the present task is to end; else a CancelledError is gRPC's word for its own end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def answer_of(call: Any) -> Any:
    """The answer to a unary call; a moment after its task was cancelled the call is so too.

    Not at once: of a call that is cancelled in the moment of its answer Triton 2.51 often loses
    track, so that its model cannot be unloaded any more, and at times it dies (signal 11).

    Raises:
        AioRpcError: the call failed.
        CancelledError: see `is_being_cancelled`.
    """
    ended = asyncio.Event()
    call.add_done_callback(lambda _: ended.set())
    try:
        await ended.wait()
    except asyncio.CancelledError:
        asyncio.get_running_loop().call_later(LINGER_S, call.cancel)
        raise
    return await call


class Unreachable(Exception):
    """No connection came about."""


class Line:
    """A channel to an engine, and the calls on it. When retired it ends with the last of them."""

    def __init__(self, address: str, settings: ConnectionSettings) -> None:
        self._channel = grpc.aio.insecure_channel(address, _options(settings))
        self._calls = 0
        self._retired = False
        self._closing: asyncio.Task[None] | None = None
        self.service = Service(self._channel)

    @property
    def is_up(self) -> bool:
        """Whether the other end is there, as far as is known."""
        state: ChannelConnectivity = self._channel.get_state()
        return state is ChannelConnectivity.READY

    def counted(self, call: Any) -> Any:
        """The same call, which keeps the line open until it has ended."""
        self._calls += 1
        call.add_done_callback(self._end_call)
        return call

    async def connect(self) -> bool:
        """Whether there is a connection now; no second attempt is waited for."""
        while True:
            state: ChannelConnectivity = self._channel.get_state(try_to_connect=True)
            if state is ChannelConnectivity.READY:
                return True
            if state in (ChannelConnectivity.TRANSIENT_FAILURE, ChannelConnectivity.SHUTDOWN):
                return False
            await self._channel.wait_for_state_change(state)

    def retire(self) -> None:
        """Close once the calls under way have ended."""
        self._retired = True
        self._close_if_done()

    async def close(self) -> None:
        """Close now, cutting off calls under way."""
        await self._channel.close()

    def _end_call(self, _: object) -> None:
        self._calls -= 1
        self._close_if_done()

    def _close_if_done(self) -> None:
        # gRPC's own grace period sees only some of the calls under way.
        if self._retired and self._calls == 0 and self._closing is None:
            self._closing = asyncio.create_task(self._channel.close())


class Connection:
    """The connection to one address, used from one event loop."""

    def __init__(self, address: str, settings: ConnectionSettings) -> None:
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._settings = settings
        self._used_at = -math.inf
        self._attempt: asyncio.Task[bool] | None = None
        self._line = Line(address, settings)
        self._retired: WeakSet[Line] = WeakSet()

    @property
    def is_ready(self) -> bool:
        """Whether a line can be had without waiting for it."""
        return self._line.is_up and time.monotonic() - self._used_at < IDLE_PROBE_AFTER_S

    async def line(self) -> Line:
        """A line that works.

        Raises:
            Unreachable: there is none, after `connect_timeout_s` at the latest.
        """
        if not self.is_ready:
            # All who come meanwhile share the one attempt, and its failure.
            if self._attempt is None or self._attempt.done():
                self._attempt = asyncio.create_task(self._establish())
            if not await asyncio.shield(self._attempt):
                raise Unreachable
        return self._line

    def touch(self) -> None:
        """Note that the other end has answered just now."""
        self._used_at = time.monotonic()

    def failure(
        self,
        place: Place,
        error: grpc.aio.AioRpcError,
        line: Line | None,
        secrets: Sequence[str],
    ) -> EngineError:
        """What a failed call means; a line that may have died of it is tried before the next one.

        gRPC tells who was on it sooner than it knows that the line itself is gone.
        """
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            self._used_at = -math.inf
        is_up = line is not None and line.is_up
        return failures.from_rpc(place, error, connected=is_up, secrets=secrets)

    def retire(self) -> None:
        """Let calls under way finish; there will be no others."""
        self._line.retire()

    async def close(self) -> None:
        """Close now, cutting off calls under way."""
        for line in (self._line, *self._retired):
            await line.close()

    async def _establish(self) -> bool:
        if self._line.is_up and not await self._answers():
            self._line.retire()
            self._retired.add(self._line)
            self._line = Line(self._address, self._settings)
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                connected = await self._line.connect()
        except TimeoutError:
            return False
        if connected:
            self.touch()
        return connected

    async def _answers(self) -> bool:
        try:
            await self._line.service.server_live(
                messages.ServerLiveRequest(), timeout=self._settings.connect_timeout_s
            )
        except grpc.aio.AioRpcError as error:
            # Whoever says so is there.
            return bool(error.code() is grpc.StatusCode.UNIMPLEMENTED)
        return True


class Connections:
    """The connections in use, least recently used first; bounded, so that old addresses go."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._by_address: OrderedDict[str, Connection] = OrderedDict()
        self._retired: WeakSet[Connection] = WeakSet()

    def to(self, address: str) -> Connection:
        """The connection to an address; made, but not yet established, if there was none."""
        found = self._by_address.get(address)
        if found is None or found.loop is not asyncio.get_running_loop():
            found = self._by_address[address] = Connection(address, self._settings)
            self._forget_oldest()
        self._by_address.move_to_end(address)
        return found

    async def aclose(self) -> None:
        """Close all, cutting off calls under way."""
        connections = [*self._by_address.values(), *self._retired]
        self._by_address.clear()
        for connection in connections:
            await connection.close()

    def _forget_oldest(self) -> None:
        while len(self._by_address) > self._settings.max_connections:
            _, oldest = self._by_address.popitem(last=False)
            oldest.retire()
            self._retired.add(oldest)


def _options(settings: ConnectionSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Despite its name, how long one attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", int(settings.connect_timeout_s * 1000)),
        # Else a new channel would be given the connection of the one it replaces.
        ("grpc.use_local_subchannel_pool", 1),
        # Workers are neighbours; a proxy for the world outside does not know them.
        ("grpc.enable_http_proxy", 0),
    ]
