"""Telemetry as Prometheus metrics, for the one-machine server's `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from synapse.domain.answer import Answered
from synapse.domain.batching import Batch
from synapse.domain.delivery import Delivery
from synapse.domain.file_batch import FileBatch
from synapse.domain.job import Job, Priority
from synapse.domain.model import WorkerHealth
from synapse.domain.pool import Pool
from synapse.domain.scaling import ScalingDecision

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class PrometheusTelemetry:
    """Counters and histograms in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._submitted = Counter(
            "synapse_jobs_submitted", "Jobs accepted.", ["model", "priority"], registry=registry
        )
        self._ended = Counter(
            "synapse_jobs_ended",
            "Jobs ended, by final state.",
            ["model", "state"],
            registry=registry,
        )
        self._tokens = Counter(
            "synapse_tokens",
            "Tokens read (in) and written (out).",
            ["model", "way"],
            registry=registry,
        )
        self._queued = self._histogram("synapse_job_queue_seconds", "Wait in the queue.")
        self._running = self._histogram("synapse_job_run_seconds", "Time on a worker.")
        self._total = self._histogram("synapse_job_total_seconds", "From submission to end.")
        self._requests = Counter(
            "synapse_requests",
            "Requests on the line, by why they ended.",
            ["model", "outcome"],
            registry=registry,
        )
        self._first_token = self._histogram(
            "synapse_time_to_first_token_seconds", "From admission to the first token."
        )
        self._per_token = self._histogram(
            "synapse_request_time_per_output_token_seconds",
            "Mean time between the tokens of an answer after its first.",
        )
        self._request_total = self._histogram(
            "synapse_e2e_request_latency_seconds", "From admission to the last token."
        )
        self._batch = Histogram(
            "synapse_batch_size",
            "Jobs a batch.",
            ["model", "pool"],
            buckets=SIZES,
            registry=registry,
        )
        self._errors = Counter(
            "synapse_engine_errors",
            "Items an engine refused or lost.",
            ["model", "pool"],
            registry=registry,
        )
        self._webhooks = Counter(
            "synapse_webhook_attempts",
            "Attempts at deliveries of webhooks, by how these stand since.",
            ["outcome"],
            registry=registry,
        )
        self._swept = Counter(
            "synapse_swept_jobs", "Jobs the sweeper moved.", ["remedy"], registry=registry
        )
        self._file_batches = Counter(
            "synapse_file_batches_ended",
            "File batches ended, by final status.",
            ["status"],
            registry=registry,
        )
        self._workers = Gauge(
            "synapse_pool_workers",
            "Workers of a pool: wanted, up, and on their way.",
            ["pool", "state"],
            registry=registry,
        )
        self._scalings = Counter(
            "synapse_pool_scalings",
            "Changes of how many workers a pool should have, out or in.",
            ["pool", "way"],
            registry=registry,
        )
        self._cold_start = self._histogram(
            "synapse_cold_start_seconds",
            "From a request that no worker was up for to its answer.",
        )

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ["model"], buckets=SECONDS, registry=self._registry)

    def submitted(self, job: Job) -> None:
        """See `Telemetry`."""
        self._submitted.labels(job.model, job.priority).inc()

    def ended(self, job: Job) -> None:
        """See `Telemetry`."""
        self._ended.labels(job.model, job.state).inc()
        if job.finished_at is None:
            return
        self._total.labels(job.model).observe(job.finished_at - job.created_at)
        if job.started_at is not None:
            self._queued.labels(job.model).observe(job.started_at - job.created_at)
            self._running.labels(job.model).observe(job.finished_at - job.started_at)
        if job.usage is not None:
            self._tokens.labels(job.model, "in").inc(job.usage.prompt_tokens)
            self._tokens.labels(job.model, "out").inc(job.usage.completion_tokens)

    def batch_ran(self, batch: Batch, pool: Pool, seconds: float, errors: int) -> None:
        """See `Telemetry`."""
        self._batch.labels(batch.model, pool.name).observe(len(batch.job_ids))
        if errors:
            self._errors.labels(batch.model, pool.name).inc(errors)

    def answered(self, answered: Answered) -> None:
        """See `Telemetry`."""
        model, timings, usage = answered.model, answered.timings, answered.usage
        self._requests.labels(model, answered.outcome).inc()
        self._tokens.labels(model, "in").inc(usage.prompt_tokens)
        self._tokens.labels(model, "out").inc(usage.completion_tokens)
        if timings.first_token_s is not None:
            self._first_token.labels(model).observe(timings.first_token_s)
        if not answered.is_success:
            return
        self._request_total.labels(model).observe(timings.total_s)
        per_token_s = timings.per_token_s(usage.completion_tokens)
        if per_token_s is not None:
            self._per_token.labels(model).observe(per_token_s)

    def file_batch_ended(self, batch: FileBatch) -> None:
        """See `Telemetry`."""
        self._file_batches.labels(batch.status).inc()

    def webhook_tried(self, delivery: Delivery) -> None:
        """See `Telemetry`."""
        self._webhooks.labels(delivery.state).inc()

    def pinged(self, health: WorkerHealth) -> None:
        """See `Telemetry`; the registry's health is exposed instead (`exposition`)."""

    def swept(self, remedies: Mapping[str, int]) -> None:
        """See `Telemetry`."""
        for remedy, times in remedies.items():
            self._swept.labels(remedy).inc(times)

    def queue_depth(self, depth: Mapping[Priority, int]) -> None:
        """See `Telemetry`; the queue's own depth is exposed instead (`exposition`)."""

    def pool_sized(self, pool: str, desired: int, ready: int, starting: int) -> None:
        """See `Telemetry`."""
        self._workers.labels(pool, "desired").set(desired)
        self._workers.labels(pool, "ready").set(ready)
        self._workers.labels(pool, "starting").set(starting)

    def scaled(self, decision: ScalingDecision) -> None:
        """See `Telemetry`."""
        way = "out" if decision.desired > decision.was else "in"
        self._scalings.labels(decision.pool, way).inc()

    def cold_started(self, model: str, pool: str, seconds: float) -> None:
        """See `Telemetry`."""
        self._cold_start.labels(model).observe(seconds)

    def render(self) -> str:
        """The exposition text."""
        return generate_latest(self._registry).decode()
