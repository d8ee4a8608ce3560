"""Telemetry as CloudWatch embedded metrics: JSON lines on standard output, no API calls."""

from __future__ import annotations

from collections.abc import Mapping

from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from synapse.domain.answer import Answered
from synapse.domain.batching import Batch
from synapse.domain.delivery import Delivery
from synapse.domain.file_batch import FileBatch
from synapse.domain.job import Job, JobState, Priority
from synapse.domain.model import WorkerHealth
from synapse.domain.pool import Pool
from synapse.domain.scaling import ScalingDecision
from synapse.observability import NAMESPACE, Metric

ENDED = {
    JobState.COMPLETED: Metric.JOBS_COMPLETED,
    JobState.FAILED: Metric.JOBS_FAILED,
    JobState.CANCELLED: Metric.JOBS_CANCELLED,
    JobState.EXPIRED: Metric.JOBS_EXPIRED,
}


UNSUCCESSFUL = {"refused": Metric.REQUESTS_REFUSED, "cancelled": Metric.REQUESTS_CANCELLED}


class EmfTelemetry:
    """Collects metrics per set of dimensions; `flush` writes them out."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._sets: dict[tuple[tuple[str, str], ...], EphemeralMetrics] = {}

    def submitted(self, job: Job) -> None:
        """See `Telemetry`."""
        self._count(Metric.JOBS_SUBMITTED, 1, model=job.model, priority=job.priority)

    def ended(self, job: Job) -> None:
        """See `Telemetry`."""
        self._count(ENDED[job.state], 1, model=job.model)
        if job.finished_at is None:
            return
        self._time(Metric.TOTAL_TIME, job.finished_at - job.created_at, model=job.model)
        if job.started_at is not None:
            self._time(Metric.QUEUE_TIME, job.started_at - job.created_at, model=job.model)
            self._time(Metric.RUN_TIME, job.finished_at - job.started_at, model=job.model)
        if job.usage is not None:
            self._count(Metric.TOKENS_IN, job.usage.prompt_tokens, model=job.model)
            self._count(Metric.TOKENS_OUT, job.usage.completion_tokens, model=job.model)

    def batch_ran(self, batch: Batch, pool: Pool, seconds: float, errors: int) -> None:
        """See `Telemetry`."""
        self._count(Metric.BATCH_SIZE, len(batch.job_ids), model=batch.model, pool=pool.name)
        self._time(Metric.BATCH_TIME, seconds, model=batch.model, pool=pool.name)
        if errors:
            self._count(Metric.ENGINE_ERRORS, errors, model=batch.model, pool=pool.name)

    def batch_lost(self) -> None:
        """A batch came back because its runner failed, or a worker went down with it."""
        self._count(Metric.BATCHES_LOST, 1)

    def answered(self, answered: Answered) -> None:
        """See `Telemetry`."""
        model, timings, usage = answered.model, answered.timings, answered.usage
        self._count(_requests_metric(answered), 1, model=model)
        if usage.total_tokens:
            self._count(Metric.TOKENS_IN, usage.prompt_tokens, model=model)
            self._count(Metric.TOKENS_OUT, usage.completion_tokens, model=model)
        if timings.first_token_s is not None:
            self._time(Metric.FIRST_TOKEN_TIME, timings.first_token_s, model=model)
        if not answered.is_success:
            return
        self._time(Metric.REQUEST_TIME, timings.total_s, model=model)
        per_token_s = timings.per_token_s(usage.completion_tokens)
        if per_token_s is not None:
            self._time(Metric.TOKEN_TIME, per_token_s, model=model)

    def file_batch_ended(self, batch: FileBatch) -> None:
        """See `Telemetry`."""
        status = batch.status
        self._count(Metric.FILE_BATCHES_ENDED, 1, status=status)
        elapsed_s = batch.entered[status] - batch.created_at
        self._time(Metric.FILE_BATCH_TIME, elapsed_s, status=status)

    def webhook_tried(self, delivery: Delivery) -> None:
        """See `Telemetry`."""
        self._count(Metric.WEBHOOK_ATTEMPTS, 1, outcome=delivery.state)

    def pinged(self, health: WorkerHealth) -> None:
        """See `Telemetry`."""
        dimensions = {"model": health.model, "pool": health.pool}
        self._count(Metric.WORKER_HEALTHY, int(health.healthy), **dimensions)
        self._time(Metric.PING_TIME, health.latency_ms / 1000, **dimensions)

    def swept(self, remedies: Mapping[str, int]) -> None:
        """See `Telemetry`."""
        for remedy, times in remedies.items():
            self._count(Metric.SWEPT_JOBS, times, remedy=remedy)

    def queue_depth(self, depth: Mapping[Priority, int]) -> None:
        """See `Telemetry`."""
        for priority, waiting in depth.items():
            self._count(Metric.QUEUE_DEPTH, waiting, priority=priority)

    def pool_sized(self, pool: str, desired: int, ready: int, starting: int) -> None:
        """See `Telemetry`."""
        self._count(Metric.WORKERS_DESIRED, desired, pool=pool)
        self._count(Metric.WORKERS_READY, ready, pool=pool)
        self._count(Metric.WORKERS_STARTING, starting, pool=pool)

    def scaled(self, decision: ScalingDecision) -> None:
        """See `Telemetry`."""
        is_out = decision.desired > decision.was
        self._count(Metric.SCALE_OUTS if is_out else Metric.SCALE_INS, 1, pool=decision.pool)

    def cold_started(self, model: str, pool: str, seconds: float) -> None:
        """See `Telemetry`."""
        self._count(Metric.COLD_STARTS, 1, model=model, pool=pool)
        self._time(Metric.COLD_START_TIME, seconds, model=model, pool=pool)

    def flush(self) -> None:
        """Write what was collected, a line for each set of dimensions."""
        sets, self._sets = self._sets, {}
        for metrics in sets.values():
            metrics.flush_metrics()

    def _count(self, name: Metric, value: float, **dimensions: str) -> None:
        self._set(dimensions).add_metric(name.value, MetricUnit.Count, value)

    def _time(self, name: Metric, seconds: float, **dimensions: str) -> None:
        self._set(dimensions).add_metric(name.value, MetricUnit.Milliseconds, seconds * 1000)

    def _set(self, dimensions: Mapping[str, str]) -> EphemeralMetrics:
        key = tuple(sorted(dimensions.items()))
        metrics = self._sets.get(key)
        if metrics is None:
            metrics = EphemeralMetrics(namespace=NAMESPACE, service=self._service)
            for name, value in key:
                metrics.add_dimension(name, str(value))
            self._sets[key] = metrics
        return metrics


def _requests_metric(answered: Answered) -> Metric:
    if answered.is_success:
        return Metric.REQUESTS_ANSWERED
    return UNSUCCESSFUL.get(answered.outcome, Metric.REQUESTS_FAILED)
