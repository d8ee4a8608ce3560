"""Prometheus text of what any target can tell: how the workers are, and what waits for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from synapse.domain.admission import Load
from synapse.domain.job import Priority
from synapse.domain.model import WorkerHealth


def exposition(
    workers: Sequence[WorkerHealth], depth: Mapping[Priority, int], loads: Mapping[str, Load]
) -> str:
    """The gauges, in Prometheus' text format 0.0.4; `loads` are by model."""
    lines = [
        *_gauge(
            "synapse_worker_healthy",
            "Whether the last ping of the worker was answered.",
            (({"model": w.model, "pool": w.pool}, float(w.healthy)) for w in workers),
        ),
        *_gauge(
            "synapse_worker_ping_seconds",
            "How long the last ping of the worker took.",
            (({"model": w.model, "pool": w.pool}, w.latency_ms / 1000) for w in workers),
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
