"""What travels as JSON reads back as it was, and what is malformed is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.adapters.codec import (
    file_batch_from_event,
    file_batch_to_event,
    give_back_order_from_event,
    job_from_json,
    job_to_json,
    message_from_json,
    message_to_json,
    order_to_event,
    progress_to_event,
    runner_order_from_event,
)
from synapse.domain.batching import JobMessage
from synapse.domain.extension import Extension
from synapse.domain.file_batch import FileBatchId
from synapse.domain.job import (
    Failure,
    Job,
    JobId,
    JobState,
    Lease,
    Payload,
    Priority,
    Served,
    SlaTier,
    Usage,
)
from tests.factories import a_message, a_pool, an_order
from tests.orders import order_of

EVENTS = Path(__file__).parents[3] / "events"

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
COUNTS = st.integers(0, 2**53)
TIMES = st.floats(0, 1e11, allow_nan=False)
PAYLOADS = st.builds(Payload, TEXTS) | st.builds(Payload, st.none(), NAMES)
JOBS = st.builds(
    Job,
    id=NAMES.map(JobId),
    model=NAMES,
    version=NAMES,
    payload=PAYLOADS,
    priority=st.sampled_from(Priority),
    sla=st.sampled_from(SlaTier),
    tokens=COUNTS,
    created_at=TIMES,
    deadline_at=TIMES,
    state=st.sampled_from(JobState),
    tenant=TEXTS,
    account=TEXTS,
    announce=st.booleans(),
    callback_url=st.none() | TEXTS,
    metadata=st.dictionaries(TEXTS, TEXTS),
    sends=COUNTS,
    resends=COUNTS,
    sent_at=TIMES,
    losses=COUNTS,
    requires=st.frozensets(st.sampled_from(Extension)),
    items=st.integers(1, 128),
    lease=st.none() | st.builds(Lease, TEXTS, TIMES),
    started_at=st.none() | TIMES,
    finished_at=st.none() | TIMES,
    result=st.none() | PAYLOADS,
    usage=st.none() | st.builds(Usage, COUNTS, COUNTS),
    failure=st.none() | st.builds(Failure, TEXTS, TEXTS),
    served=st.none() | st.builds(Served, TEXTS, TEXTS, COUNTS, TEXTS, TEXTS),
)
MESSAGES = st.builds(
    JobMessage,
    job_id=NAMES.map(JobId),
    model=NAMES,
    version=NAMES,
    priority=st.sampled_from(Priority),
    tokens=COUNTS,
    sent_at=TIMES,
    deadline_at=TIMES,
    losses=COUNTS,
    requires=st.frozensets(st.sampled_from(Extension)),
    items=st.integers(1, 128),
)


@given(JOBS)
def test_any_job_reads_back_as_it_was(job: Job) -> None:
    assert job_from_json(job_to_json(job)) == job


@given(MESSAGES)
def test_any_message_reads_back_as_it_was(message: JobMessage) -> None:
    assert message_from_json(message_to_json(message)) == message
    assert message_from_json(message_to_json(message).encode()) == message


def test_a_batch_reads_back_with_the_names_and_runners_of_its_pools() -> None:
    order = an_order("job-1", "job-2", pools=(a_pool("gpu"), a_pool("cpu")))

    read = order_of(json.loads(json.dumps(order_to_event(order))))

    assert read.batch == order.batch
    assert [(p.name, p.runner) for p in read.pools] == [(p.name, p.runner) for p in order.pools]


def changed_message(**changes: Any) -> str:
    return json.dumps({**json.loads(message_to_json(a_message())), **changes})


MALFORMED = {
    "": "not valid JSON",
    "{": "not valid JSON",
    "[" * 100_000: "not valid JSON",
    "[]": "expected an object, got list",
    "null": "expected an object, got nothing",
    "{}": "priority: expected a non-empty text, got nothing",
    changed_message(jobId=""): "jobId",
    changed_message(jobId=7): "jobId: expected a non-empty text, got int",
    changed_message(priority="urgent"): "priority: must be one of high, normal, low",
    changed_message(tokens="7"): "tokens: expected a number, got str",
    changed_message(tokens=True): "tokens: expected a number, got bool",
    changed_message(tokens=float("inf")): "tokens: expected a finite number",
    changed_message(sentAt=float("nan")): "sentAt: expected a finite number",
    changed_message(requires=["telepathy"]): "requires: expected a list of cached_tokens",
    changed_message(requires="priority"): "requires: expected a list of cached_tokens",
    changed_message(losses=None): "losses: expected a number, got nothing",
}


@pytest.mark.parametrize(("body", "reason"), MALFORMED.items(), ids=range(len(MALFORMED)))
def test_a_malformed_message_is_refused_by_the_name_of_its_fault(body: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        message_from_json(body)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match="not valid JSON"):
        message_from_json(b"\xff\xfe\xfd")


def test_a_refusal_never_repeats_the_body() -> None:
    with pytest.raises(ValueError) as raised:
        message_from_json(changed_message(priority="my secret prompt"))

    assert "secret" not in str(raised.value)


def test_a_message_of_a_newer_writer_is_read() -> None:
    assert message_from_json(changed_message(traceId="x")).model == "echo"


def test_a_message_without_losses_has_none() -> None:
    body = json.loads(message_to_json(a_message(losses=3)))
    del body["losses"]

    assert message_from_json(json.dumps(body)).losses == 0


def test_a_message_from_before_there_were_requirements_has_none() -> None:
    body = json.loads(message_to_json(a_message(requires=frozenset(Extension))))
    del body["requires"]

    assert message_from_json(json.dumps(body)).requires == frozenset()


def test_a_message_from_before_they_told_of_items_has_one() -> None:
    body = json.loads(message_to_json(a_message(items=4)))
    del body["items"]

    assert message_from_json(json.dumps(body)).items == 1


def test_a_runner_is_told_its_batch_and_pool() -> None:
    event = json.loads((EVENTS / "run_batch.batch.json").read_text())

    batch, pool = runner_order_from_event(event)

    assert batch.id == event["batchId"]
    assert batch.job_ids == tuple(event["jobIds"])
    assert batch.items == tuple(event["items"])
    assert (batch.model, batch.version, pool) == (event["model"], event["version"], event["pool"])


@pytest.mark.parametrize("items", [None, []])
def test_a_batch_from_before_it_told_of_items_has_one_of_each_job(items: object) -> None:
    event = json.loads((EVENTS / "run_batch.batch.json").read_text()) | {"items": items}
    if items is None:
        del event["items"]

    batch, _ = runner_order_from_event(event)

    assert batch.items_of_jobs == (1, 1)


@pytest.mark.parametrize("items", [7, [1], [1, 0], [1, "1"], [1, True]])
def test_items_that_are_none_or_not_of_all_jobs_are_refused(items: object) -> None:
    event = json.loads((EVENTS / "run_batch.batch.json").read_text())

    with pytest.raises(ValueError, match="items: expected"):
        runner_order_from_event({**event, "items": items})


@pytest.mark.parametrize("field", ["batchId", "model", "version", "jobIds", "pool"])
@pytest.mark.parametrize("value", [None, 7, {"a": 1}])
def test_a_runners_malformed_order_is_refused_by_field(field: str, value: object) -> None:
    event = json.loads((EVENTS / "run_batch.batch.json").read_text())

    with pytest.raises(ValueError, match=f"{field}: expected"):
        runner_order_from_event({**event, field: value})


def given_back(error: str, cause: object) -> dict[str, Any]:
    return {"batchId": "b1", "jobIds": ["j1", "j2"], "error": {"Error": error, "Cause": cause}}


def test_a_batch_is_given_back_with_the_workers_own_words() -> None:
    cause = json.dumps({"errorType": "EngineLost", "errorMessage": "the worker went down"})

    order = give_back_order_from_event(given_back("EngineLost", cause))

    assert (order.batch_id, order.job_ids) == ("b1", ("j1", "j2"))
    assert order.failure == Failure("worker_lost", "the worker went down")
    assert order.lost


@pytest.mark.parametrize(
    ("error", "code", "lost"),
    [
        ("EngineUnavailable", "engine_unavailable", False),
        ("EngineFull", "engine_unavailable", False),
        ("Lambda.TooManyRequestsException", "engine_unavailable", False),
        ("Lambda.ResourceNotFoundException", "engine_unavailable", False),
        ("Lambda.ENINotReadyException", "engine_unavailable", False),
        ("EngineLost", "worker_lost", True),
        ("Sandbox.Timedout", "worker_lost", True),
        ("Runtime.ExitError", "worker_lost", True),
        ("States.Timeout", "worker_lost", True),
        ("ValueError", "internal_error", True),
    ],
)
def test_the_error_says_whether_work_may_have_been_begun(error: str, code: str, lost: bool) -> None:
    order = give_back_order_from_event(given_back(error, "whatever"))

    assert (order.failure.code, order.lost) == (code, lost)


@pytest.mark.parametrize("cause", [None, "", "Traceback: my prompt", "[]", '{"errorMessage": 7}'])
def test_a_cause_that_is_not_ours_is_not_made_public(cause: object) -> None:
    order = give_back_order_from_event(given_back("EngineLost", cause))

    assert order.failure.message == "the batch could not be run (EngineLost)"


def test_the_text_of_an_unexpected_error_is_not_made_public() -> None:
    cause = json.dumps({"errorType": "ValueError", "errorMessage": "my prompt is bad"})

    order = give_back_order_from_event(given_back("ValueError", cause))

    assert order.failure.message == "the batch could not be run (ValueError)"


def test_a_file_batch_travels_by_tenant_and_id() -> None:
    event = file_batch_to_event("team", FileBatchId("batch_1"))

    assert file_batch_from_event(json.loads(json.dumps(event))) == ("team", "batch_1")


@pytest.mark.parametrize("event", [None, [], {}, {"tenant": "a"}, {"tenant": "", "batchId": "b"}])
def test_an_event_that_names_no_file_batch_is_refused(event: object) -> None:
    with pytest.raises(ValueError, match=r"event|tenant|batchId"):
        file_batch_from_event(event)


@pytest.mark.parametrize(("wait_s", "seconds"), [(0.0, 1), (0.2, 1), (1.0, 1), (59.1, 60)])
def test_the_state_machine_waits_whole_seconds(wait_s: float, seconds: int) -> None:
    assert progress_to_event(done=False, wait_s=wait_s) == {"done": False, "waitSeconds": seconds}
