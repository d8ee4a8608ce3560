"""The names of everything that is measured (docs/metrics.md), and how Lambdas log."""

from __future__ import annotations

import logging
from enum import StrEnum

from aws_lambda_powertools import Logger

NAMESPACE = "Synapse"


class Metric(StrEnum):
    """Metric names, as they appear in CloudWatch."""

    JOBS_SUBMITTED = "JobsSubmitted"
    JOBS_COMPLETED = "JobsCompleted"
    JOBS_FAILED = "JobsFailed"
    JOBS_CANCELLED = "JobsCancelled"
    JOBS_EXPIRED = "JobsExpired"
    QUEUE_TIME = "QueueTimeMs"
    RUN_TIME = "InferenceMs"
    TOTAL_TIME = "TotalMs"
    REQUESTS_ANSWERED = "RequestsAnswered"
    REQUESTS_REFUSED = "RequestsRefused"
    REQUESTS_CANCELLED = "RequestsCancelled"
    REQUESTS_FAILED = "RequestsFailed"
    FIRST_TOKEN_TIME = "TimeToFirstTokenMs"
    TOKEN_TIME = "TimePerOutputTokenMs"
    REQUEST_TIME = "RequestMs"
    BATCH_SIZE = "BatchSize"
    BATCH_TIME = "BatchMs"
    BATCHES_LOST = "BatchesLost"
    TOKENS_IN = "TokensIn"
    TOKENS_OUT = "TokensOut"
    ENGINE_ERRORS = "EngineErrors"
    WORKER_HEALTHY = "WorkerHealthy"
    PING_TIME = "PingMs"
    QUEUE_DEPTH = "QueueDepth"
    SWEPT_JOBS = "SweptJobs"
    FILE_BATCHES_ENDED = "FileBatchesEnded"
    FILE_BATCH_TIME = "FileBatchMs"
    WEBHOOK_ATTEMPTS = "WebhookAttempts"
    WORKERS_DESIRED = "WorkersDesired"
    WORKERS_READY = "WorkersReady"
    WORKERS_STARTING = "WorkersStarting"
    SCALE_OUTS = "ScaleOuts"
    SCALE_INS = "ScaleIns"
    COLD_STARTS = "ColdStarts"
    COLD_START_TIME = "ColdStartMs"


def lambda_logger() -> Logger:
    """The function's logger; the library's own records go out in the same JSON.

    Log records carry ids, sizes and times, never a prompt or a result.
    """
    logger = Logger()
    library = logging.getLogger("synapse")
    if not library.handlers:
        library.addHandler(logger.registered_handler)
        library.setLevel(logger.log_level)
        library.propagate = False
    return logger
