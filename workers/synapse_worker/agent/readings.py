"""Reads Triton's metrics page, with what the engines add to it under vLLM's names. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

LINE = re.compile(r"([\w:]+)(?:\{(.*)\})?\s+(\S+)")
MODEL = re.compile(r'(?:model|model_name)="([^"]*)"')

WAITING = frozenset({"nv_inference_pending_request_count", "vllm:num_requests_waiting"})
RUNNING = frozenset({"vllm:num_requests_running"})
ENDED = frozenset({"nv_inference_request_success", "nv_inference_request_failure"})
# vLLM has renamed them more than once, and its client library adds "_total" to counters.
KV_CACHE_USE = frozenset({"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"})
PREFIX_QUERIES = frozenset(
    f"vllm:{gpu}prefix_cache_queries{total}" for gpu in ("", "gpu_") for total in ("", "_total")
)
PREFIX_HITS = frozenset(name.replace("queries", "hits") for name in PREFIX_QUERIES)


@dataclass
class ModelReading:
    """One model: requests that wait, those known to run, and how many have ended so far.

    `tells_running`: its engine says how many run, so that none is none.
    """

    waiting: int = 0
    running: int = 0
    ended: int = 0
    tells_running: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether something of it is known to be under way.

        Triton does not count what a batch in a backend's hands consists of, so that False is no
        proof: only an unload waits for everything.
        """
        return self.waiting + self.running > 0


@dataclass(frozen=True)
class Readings:
    """All of a page; shares are 0 to 1, None where nothing measures them."""

    models: Mapping[str, ModelReading] = field(default_factory=dict)
    gpu_utilisation: float | None = None
    gpu_memory_total_bytes: int | None = None
    gpu_memory_used_bytes: int | None = None
    kv_cache_use: float | None = None
    kv_cache_hit_rate: float | None = None

    @property
    def queue_length(self) -> int:
        """Requests that wait, over all models."""
        return sum(model.waiting for model in self.models.values())

    @property
    def running(self) -> int:
        """Requests known to be worked on, over all models."""
        return sum(model.running for model in self.models.values())

    def is_busy(self, model: str) -> bool:
        """Whether something of the model is known to be under way."""
        reading = self.models.get(model)
        return reading is not None and reading.is_busy

    def is_idle(self, model: str) -> bool:
        """Whether nothing of the model is known to be under way, by its engine's own word."""
        reading = self.models.get(model)
        return reading is not None and reading.tells_running and not reading.is_busy


def read_page(page: str) -> Readings:
    """The whole page; what it does not have is None or nothing."""
    models: defaultdict[str, ModelReading] = defaultdict(ModelReading)
    values: defaultdict[str, list[float]] = defaultdict(list)
    for name, model, value in _samples(page):
        values[name].append(value)
        if name in WAITING:
            models[model].waiting += int(value)
        elif name in RUNNING:
            models[model].running += int(value)
            models[model].tells_running = True
        elif name in ENDED:
            models[model].ended += int(value)
    return Readings(
        dict(models),
        gpu_utilisation=_mean(values["nv_gpu_utilization"]),
        gpu_memory_total_bytes=_total(values["nv_gpu_memory_total_bytes"]),
        gpu_memory_used_bytes=_total(values["nv_gpu_memory_used_bytes"]),
        kv_cache_use=_mean(_of(values, KV_CACHE_USE)),
        kv_cache_hit_rate=_ratio(_of(values, PREFIX_HITS), _of(values, PREFIX_QUERIES)),
    )


def _samples(page: str) -> Iterator[tuple[str, str, float]]:
    for line in page.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        name, labels, value = match.groups()
        model = MODEL.search(labels or "")
        try:
            yield name, model[1] if model else "", float(value)
        except ValueError:
            continue


def _of(values: Mapping[str, list[float]], names: Iterable[str]) -> list[float]:
    return [value for name in names for value in values.get(name, ())]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _total(values: list[float]) -> int | None:
    return int(sum(values)) if values else None


def _ratio(parts: list[float], wholes: list[float]) -> float | None:
    return sum(parts) / sum(wholes) if sum(wholes) > 0 else None
