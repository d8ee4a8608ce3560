"""What is asked of each peer at each workload, and how long that takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bench.peers.catalogue import Peer

WARM_UP_S = 1.5
WARM_UP_CLIENTS = 8

SETTLE_S = 1.0
"""Before rest is measured: the last answers are done with."""

BEGIN_AND_END_S = 3.0
SLOW_TO_BEGIN_S: Mapping[str, float] = {"Ray Serve": 12.0}
"""From the command to the first answer and from the signal to the end, where it is longer."""

VISIBILITY_S, SWEEP_S = 30.0, 10.0
REDELIVERY_S: Mapping[str, float] = dict.fromkeys(
    ("FastAPI + Celery + Redis", "Celery + Redis fsync always"), VISIBILITY_S + SWEEP_S
)
"""After a crash, until what a dead worker had taken goes to another one, at the latest."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The loads of one workload.

    `clients` ask in closed loops of `seconds` each, and each client `waves` times at least; before
    them come `rate_per_s` requests at random for `equal_s`, the same for every peer.
    `typical_per_s` is what most peers bear, for the reckoning only. `killed` requests are under way
    when everything is killed; none: nothing is. Who accepts jobs is killed `crashes` times, others
    not at all: they have nothing to lose. For `rest_s` nobody asks anything, and it is measured
    what is spent on that.
    """

    clients: tuple[int, ...]
    seconds: float
    rate_per_s: float
    equal_s: float
    typical_per_s: float
    killed: int
    rest_s: float = 0.0
    waves: int = 1
    crashes: int = 1

    @property
    def reference_clients(self) -> int:
        """The closed loop whose processor time is told: 64 clients, or the most below."""
        return max(count for count in self.clients if count <= 64)

    def lasting(self, seconds: float) -> Plan:
        """The same with closed loops of another length, and the rest in proportion."""
        equal_s = round(self.equal_s * seconds / self.seconds, 2)
        return replace(self, seconds=seconds, equal_s=equal_s)

    def round_s(self, peer: Peer) -> float:
        """How long one round of one peer takes."""
        closed = sum(self._closed_s(count) for count in self.clients)
        warm_up = WARM_UP_S + WARM_UP_CLIENTS / self.typical_per_s
        rest = SETTLE_S + self.rest_s if self.rest_s else 0.0
        return _begin_s(peer) + warm_up + rest + self.equal_s + 1 / self.typical_per_s + closed

    def _closed_s(self, clients: int) -> float:
        """How long a closed loop takes: to the end of the wave under way when time is up."""
        wave_s = clients / self.typical_per_s
        return max(self.seconds + wave_s, self.waves * wave_s)

    def crashes_of(self, peer: Peer) -> int:
        """How often it is killed."""
        return self.crashes if self.killed and peer.durable else 0

    def crash_s(self, peer: Peer) -> float:
        """How long it takes to kill it once and to see what is left."""
        again_s = REDELIVERY_S.get(peer.name, 0.0)
        return 2 * _begin_s(peer) + self.killed / self.typical_per_s + again_s


PLANS: Mapping[str, Plan] = {
    "noop": Plan((1, 8, 64, 256, 1000), 1.5, 60.0, 5.0, 300.0, 200, rest_s=4.0, waves=3, crashes=2),
    "embed": Plan((1, 8, 64, 256), 2.0, 24.0, 5.0, 100.0, 0, waves=3),
    # A generation takes seconds at 32 clients; with more most of what is measured is the queue.
    "generate": Plan((1, 8, 32), 4.0, 1.3, 11.0, 3.3, 0, waves=3),
}
"""Crashes and rest are of no-ops: they do not depend on the model, whose load is the start's."""


def _begin_s(peer: Peer) -> float:
    return SLOW_TO_BEGIN_S.get(peer.name, BEGIN_AND_END_S)
