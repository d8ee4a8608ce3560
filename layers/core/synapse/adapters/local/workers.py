"""The workers of one machine, as their last heartbeats showed them: in memory."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.domain.worker import Worker


class LocalWorkerRegistry:
    """See the port `WorkerRegistry`; reading it awaits nothing and copies only what is alive."""

    def __init__(self) -> None:
        # Kept in the order in which they are read: that happens with every request.
        self._known: dict[str, Worker] = {}

    async def beat(self, worker: Worker) -> None:
        """See the port. Beats of one process come in order, wherever its clock is put."""
        known = self._known.get(worker.id)
        self._known[worker.id] = worker
        if known is None or known.pool != worker.pool:
            self._known = dict(sorted(self._known.items(), key=lambda each: _place(each[1])))

    async def workers(self, now: float) -> Sequence[Worker]:
        """See the port."""
        return [worker for worker in self._known.values() if worker.is_alive(now)]

    async def expire(self, now: float) -> Sequence[Worker]:
        """See the port."""
        dead = [worker for worker in self._known.values() if not worker.is_alive(now)]
        for worker in dead:
            del self._known[worker.id]
        return dead

    async def forget(self, worker_id: str) -> None:
        """See the port."""
        self._known.pop(worker_id, None)


def _place(worker: Worker) -> tuple[str, str]:
    return worker.pool, worker.id
