"""Prometheus text of what any target can tell: how the workers are, and what waits for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from synapse.domain.admission import Load
from synapse.domain.job import Priority
from synapse.domain.model import WorkerHealth
from synapse.domain.pool import Pool
from synapse.domain.worker import Worker, WorkerState


def exposition(
    workers: Sequence[WorkerHealth], depth: Mapping[Priority, int], loads: Mapping[str, Load]
) -> str:
    """The gauges, in Prometheus' text format 0.0.4; `loads` are by model."""
    lines = [
        *_gauge(
            "synapse_worker_healthy",
            "Whether a worker of the pool answers for the model, as far as was seen.",
            (({"model": w.model, "pool": w.pool}, float(w.healthy)) for w in workers),
        ),
        *_gauge(
            "synapse_worker_ping_seconds",
            "How long the last ping of the worker took.",
            (
                ({"model": w.model, "pool": w.pool}, w.latency_ms / 1000)
                for w in workers
                if w.latency_ms
            ),
        ),
        *_gauge(
            "synapse_queue_depth",
            "Jobs waiting.",
            (({"priority": priority.value}, float(n)) for priority, n in depth.items()),
        ),
        *_gauge(
            "synapse_num_requests_running",
            "Items of jobs and requests that an engine works on.",
            (({"model": model}, float(load.running)) for model, load in loads.items()),
        ),
        *_gauge(
            "synapse_num_requests_waiting",
            "Items sent to an engine beyond its slots.",
            (({"model": model}, float(load.waiting)) for model, load in loads.items()),
        ),
    ]
    return "\n".join(lines) + "\n"


def fleet_exposition(
    pools: Sequence[Pool], workers: Sequence[Worker], unwell: Sequence[tuple[str, str, str]]
) -> str:
    """The same of the fleet: its workers that are alive, by pool and state, and open breakers.

    Every pool has a figure for every state; `unwell` are (model, pool, worker id).
    """
    counts = Counter((worker.pool, worker.state) for worker in workers)
    lines = [
        *_gauge(
            "synapse_workers",
            "Workers that are alive.",
            (
                ({"pool": pool.name, "state": state.value}, float(counts[pool.name, state]))
                for pool in pools
                for state in WorkerState
            ),
        ),
        *_gauge(
            "synapse_breaker_open",
            "Workers that are left alone for a model, or tried with single calls.",
            (
                ({"model": model, "pool": pool, "worker": worker}, 1.0)
                for model, pool, worker in unwell
            ),
        ),
    ]
    return "\n".join(lines) + "\n"


def _gauge(
    name: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]
) -> Iterable[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        inner = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"{name}{{{inner}}} {value:g}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
