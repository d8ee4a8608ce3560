"""Puts an engine's load on Triton's metrics page, under vLLM's names.

Triton itself forgets a request that runs decoupled, and counts nothing that is being worked on.
"""

import threading
from collections.abc import Callable
from typing import Any

import triton_python_backend_utils as pb_utils

from synapse_worker.load import Load

REPORT_INTERVAL_S = 0.15

GAUGES = {
    "running": ("vllm:num_requests_running", "Requests in a slot of the engine"),
    "waiting": ("vllm:num_requests_waiting", "Requests that wait for a slot of the engine"),
}
CACHE_GAUGES = {
    "kv_cache_use": ("vllm:kv_cache_usage_perc", "Share of the engine's context in use, 0 to 1"),
}
CACHE_COUNTERS = {
    "prompt_tokens": ("vllm:prefix_cache_queries", "Tokens of prompts that were read"),
    "cached_tokens": ("vllm:prefix_cache_hits", "Those that the prefix cache had"),
}


class LoadMetrics:
    """Of one model. Only one thread may ever tell: Triton dies of metrics set from several."""

    def __init__(self, args: dict[str, str], *, has_cache: bool) -> None:
        """`args` are what Triton initialises the model with."""
        labels = {"model": args["model_name"], "version": args["model_version"]}
        counters = CACHE_COUNTERS if has_cache else {}
        gauges = GAUGES | (CACHE_GAUGES if has_cache else {})
        # The families are held: the page shows them for as long as they live.
        self._families = {
            **{f: _family(*gauge, pb_utils.MetricFamily.GAUGE) for f, gauge in gauges.items()},
            **{f: _family(*each, pb_utils.MetricFamily.COUNTER) for f, each in counters.items()},
        }
        self._metrics = {f: family.Metric(labels=labels) for f, family in self._families.items()}
        self._counters = frozenset(counters)
        self._told = Load()

    def tell(self, load: Load) -> None:
        """Show what has changed."""
        for field, metric in self._metrics.items():
            now, before = getattr(load, field), getattr(self._told, field)
            if now == before:
                continue
            if field in self._counters:
                metric.increment(now - before)
            else:
                metric.set(now)
        self._told = load


class LoadReporter:
    """Looks at a load now and then, in a thread of its own, and tells it."""

    def __init__(self, load: Callable[[], Load], metrics: LoadMetrics) -> None:
        """Begins at once."""
        self._load = load
        self._metrics = metrics
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Tell nothing more."""
        self._closing.set()
        self._thread.join()
        self._metrics.tell(Load())

    def _run(self) -> None:
        while not self._closing.wait(REPORT_INTERVAL_S):
            self._metrics.tell(self._load())


def _family(name: str, description: str, kind: Any) -> Any:
    return pb_utils.MetricFamily(name=name, description=description, kind=kind)
