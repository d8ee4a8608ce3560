"""What a call says of its worker and of its pool, told to the breakers of both."""

from __future__ import annotations

from synapse.domain.breaker import Breaker


class Verdict:
    """On the worker and the pool of a call that has begun.

    A pool is not held to be ill because one of its workers is in doubt.
    """

    __slots__ = ("_pool", "_pool_ticket", "_worker", "_worker_ticket")

    def __init__(self, worker: Breaker, pool: Breaker, now: float) -> None:
        self._worker, self._worker_ticket = worker, worker.began(now)
        self._pool, self._pool_ticket = pool, pool.began(now)

    def failed(self, now: float) -> None:
        """The call failed; that can be said more than once."""
        self._worker.failed(self._worker_ticket, now)
        self._pool.failed(self._pool_ticket, now)

    def in_doubt(self, now: float, *, answered: bool = False) -> None:
        """The call was in vain, or `answered` too late or oddly; the worker may not be to blame."""
        self._worker.failed(self._worker_ticket, now, mild=True, answered=answered)
        self._pool.dropped(self._pool_ticket)

    def went_well(self, now: float) -> None:
        """The call did."""
        self._worker.succeeded(self._worker_ticket, now)
        self._pool.succeeded(self._pool_ticket, now)

    def says_nothing(self) -> None:
        """The call ended without showing anything."""
        self._worker.dropped(self._worker_ticket)
        self._pool.dropped(self._pool_ticket)
