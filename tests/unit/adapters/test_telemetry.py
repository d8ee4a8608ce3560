"""What an operator reads of requests on the line: Prometheus text, and EMF lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from synapse.adapters.telemetry.emf import EmfTelemetry
from synapse.adapters.telemetry.exposition import exposition, fleet_exposition
from synapse.adapters.telemetry.prometheus import PrometheusTelemetry
from synapse.domain.admission import Load
from synapse.domain.answer import Answered, Timings
from synapse.domain.delivery import Answer, delivery_of
from synapse.domain.job import JobState, Usage
from synapse.domain.webhook import event_of_job
from synapse.domain.worker import WorkerState
from tests.factories import NOW, a_file_batch, a_health, a_job, a_pool, a_worker

STREAMED = Answered("m", "cpu", "length", True, Timings(0.1, 0.25, 2.25), Usage(7, 5))
WHOLE = Answered("m", "cpu", "stop", True, Timings(0.0, None, 1.0), Usage(2, 3))
CANCELLED = Answered("m", "cpu", "cancelled", False, Timings(0.0, 0.5, 0.75), Usage(7, 2))
REFUSED = Answered("m", "", "refused", False, Timings())
LOST = Answered("m", "cpu", "worker_lost", False, Timings(0.0, None, 0.3))
ALL = (STREAMED, WHOLE, CANCELLED, REFUSED, LOST)


def samples(text: str) -> dict[str, float]:
    """Every sample of an exposition, as name{labels}."""
    return {
        sample.name + str(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_counts_requests_by_why_they_ended_and_times_those_that_have_times() -> None:
    telemetry = PrometheusTelemetry()
    for answered in ALL:
        telemetry.answered(answered)

    read = samples(telemetry.render())

    model = "[('model', 'm')]"
    for outcome in ("length", "stop", "cancelled", "refused", "worker_lost"):
        assert read[f"synapse_requests_total[('model', 'm'), ('outcome', '{outcome}')]"] == 1
    assert read["synapse_tokens_total[('model', 'm'), ('way', 'in')]"] == 16
    assert read["synapse_tokens_total[('model', 'm'), ('way', 'out')]"] == 10
    assert read[f"synapse_time_to_first_token_seconds_count{model}"] == 2
    assert read[f"synapse_time_to_first_token_seconds_sum{model}"] == 0.75
    assert read[f"synapse_request_time_per_output_token_seconds_count{model}"] == 1
    assert read[f"synapse_request_time_per_output_token_seconds_sum{model}"] == 0.5
    assert read[f"synapse_e2e_request_latency_seconds_count{model}"] == 2
    assert read[f"synapse_e2e_request_latency_seconds_sum{model}"] == 3.25


def test_emf_counts_requests_by_how_they_ended_and_times_those_that_have_times(
    capsys: pytest.CaptureFixture[str],
) -> None:
    telemetry = EmfTelemetry("api")
    for answered in ALL:
        telemetry.answered(answered)

    telemetry.flush()

    [line] = capsys.readouterr().out.splitlines()
    written: dict[str, Any] = json.loads(line)
    assert written["model"] == "m"
    assert written["RequestsAnswered"] == [1, 1]
    assert written["RequestsCancelled"] == [1]
    assert written["RequestsRefused"] == [1]
    assert written["RequestsFailed"] == [1]
    assert written["TimeToFirstTokenMs"] == [250, 500]
    assert written["TimePerOutputTokenMs"] == [500]
    assert written["RequestMs"] == [2250, 1000]
    assert written["TokensIn"] == [7, 2, 7]
    assert written["TokensOut"] == [5, 3, 2]


def test_the_gauges_tell_what_runs_and_what_waits() -> None:
    loads = {"m": Load.of(11, slots=8), "idle": Load.of(0, slots=8)}

    read = samples(exposition([a_health()], {}, loads))

    assert read["synapse_num_requests_running[('model', 'm')]"] == 8
    assert read["synapse_num_requests_waiting[('model', 'm')]"] == 3
    assert read["synapse_num_requests_running[('model', 'idle')]"] == 0
    assert read["synapse_num_requests_waiting[('model', 'idle')]"] == 0


def test_the_gauges_of_the_fleet_count_workers_by_pool_and_state_and_name_open_breakers() -> None:
    workers = [
        a_worker("w-1", "cpu"),
        a_worker("w-2", "cpu"),
        a_worker("w-3", "gpu", state=WorkerState.LOADING),
    ]

    read = samples(
        fleet_exposition([a_pool("cpu"), a_pool("gpu")], workers, [("echo", "cpu", "w-2")])
    )

    assert read["synapse_workers[('pool', 'cpu'), ('state', 'READY')]"] == 2
    assert read["synapse_workers[('pool', 'gpu'), ('state', 'LOADING')]"] == 1
    assert read["synapse_workers[('pool', 'gpu'), ('state', 'READY')]"] == 0
    assert sum(value for name, value in read.items() if name.startswith("synapse_workers")) == 3
    breaker = "synapse_breaker_open[('model', 'echo'), ('pool', 'cpu'), ('worker', 'w-2')]"
    assert {name: value for name, value in read.items() if "breaker" in name} == {breaker: 1}


def test_attempts_at_webhooks_are_counted_by_how_the_delivery_stands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = a_job().closed(JobState.FAILED, None, NOW)
    delivery = delivery_of(event_of_job(job), "we_1", "https://x.example/", "x.example", NOW)
    prometheus, emf = PrometheusTelemetry(), EmfTelemetry("deliver")
    for telemetry in (prometheus, emf):
        telemetry.webhook_tried(delivery.after(Answer(410), NOW, 0.5))
    emf.flush()

    read = samples(prometheus.render())
    [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert read["synapse_webhook_attempts_total[('outcome', 'given_up')]"] == 1
    assert (line["outcome"], line["WebhookAttempts"]) == ("given_up", [1])


def test_file_batches_are_counted_by_how_they_ended(capsys: pytest.CaptureFixture[str]) -> None:
    prometheus, emf = PrometheusTelemetry(), EmfTelemetry("advance_batch")
    for telemetry in (prometheus, emf):
        telemetry.file_batch_ended(a_file_batch().failed([], NOW + 2))
    emf.flush()

    read = samples(prometheus.render())
    [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert read["synapse_file_batches_ended_total[('status', 'failed')]"] == 1
    assert (line["status"], line["FileBatchesEnded"], line["FileBatchMs"]) == (
        "failed",
        [1],
        [2000],
    )
