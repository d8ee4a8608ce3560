from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import InvalidWebhookSignatureError, OpenAI

from synapse.domain.delivery import (
    DELAYS_S,
    MAX_DELAY_S,
    Answer,
    Delivery,
    DeliveryState,
    delivery_of,
    headers_of,
)
from synapse.domain.file_batch import FileBatchStatus
from synapse.domain.job import Job, JobState
from synapse.domain.webhook import (
    ROTATED_SECRET_S,
    Endpoint,
    EventType,
    Secret,
    event_of_batch,
    event_of_job,
    secret_of,
)
from tests.factories import NOW, a_file_batch, a_job

SECRET = secret_of(bytes(range(32)))
UNIFORM = st.floats(0, 1, exclude_max=True)


def ended(state: JobState, job: Job | None = None) -> Job:
    return (job or a_job(id="j1")).closed(state, None, NOW + 5)


def a_delivery() -> Delivery:
    event = event_of_job(ended(JobState.COMPLETED))
    return delivery_of(event, "we_1", "https://example.com/x", "example.com", NOW)


@pytest.mark.parametrize("state", [state for state in JobState if state.is_final])
def test_the_end_of_a_job_is_an_event_in_openais_shape(state: JobState) -> None:
    event = event_of_job(ended(state))

    body = json.loads(event.body())
    name = state.value.lower()
    assert body == {
        "id": event.id,
        "object": "event",
        "created_at": int(NOW + 5),
        "type": f"job.{name}",
        "data": {"id": "j1", "object": "job", "status": name},
    }


@pytest.mark.parametrize("status", [s for s in FileBatchStatus if s.is_final])
def test_the_end_of_a_batch_is_an_event(status: FileBatchStatus) -> None:
    batch = replace(a_file_batch(), status=status, entered={status: NOW + 9})

    event = event_of_batch(batch)

    assert (event.type, event.subject) == (f"batch.{status.value}", batch.id)
    assert event.created_at == NOW + 9


def test_what_has_not_ended_is_no_event() -> None:
    with pytest.raises(ValueError, match="not ended"):
        event_of_job(a_job())
    with pytest.raises(ValueError, match="not ended"):
        event_of_batch(a_file_batch())


def test_the_same_end_told_twice_is_the_same_event() -> None:
    first, again = event_of_job(ended(JobState.FAILED)), event_of_job(ended(JobState.FAILED))
    other = event_of_job(ended(JobState.FAILED, a_job(id="j2")))

    assert first == again
    assert len({first.id, other.id, event_of_job(ended(JobState.EXPIRED)).id}) == 3


def test_openais_own_client_accepts_the_signature() -> None:
    delivery = a_delivery()
    batch_event = event_of_batch(replace(a_file_batch(), status=FileBatchStatus.COMPLETED))
    of_batch = delivery_of(batch_event, "we_1", "https://x.example/", "x.example", NOW)
    client = OpenAI(api_key="none", webhook_secret=SECRET)

    for each in (delivery, of_batch):
        headers = dict(headers_of(each, [Secret(SECRET)], time.time()))
        event = client.webhooks.unwrap(each.body, headers)
        assert (event.id, event.type) == (each.event_id, each.type)
        assert event.data.id == each.subject  # type: ignore[union-attr]


def test_openais_own_client_refuses_another_body_another_secret_and_an_old_timestamp() -> None:
    delivery = a_delivery()
    client = OpenAI(api_key="none", webhook_secret=SECRET)
    good = dict(headers_of(delivery, [Secret(SECRET)], time.time()))
    foreign = dict(headers_of(delivery, [Secret(secret_of(bytes(32)))], time.time()))
    old = dict(headers_of(delivery, [Secret(SECRET)], time.time() - 301))

    body = delivery.body
    for sent, headers in ((body + " ", good), (body, foreign), (body, old)):
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(sent, headers)


def test_the_signature_is_that_of_the_specification() -> None:
    delivery = a_delivery()

    at = int(NOW)
    headers = headers_of(delivery, [Secret(SECRET)], at + 0.9)

    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    content = f"{delivery.event_id}.{at}.{delivery.body}".encode()
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    assert headers["webhook-id"] == delivery.event_id
    assert headers["webhook-timestamp"] == str(at)
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_while_a_secret_is_replaced_both_sign_and_a_day_later_only_the_new_one() -> None:
    endpoint = Endpoint("we_1", "t", "https://x.example/", frozenset(), (Secret(SECRET),), NOW)
    fresh = secret_of(bytes(32))

    rotated = endpoint.rotated(fresh, NOW)

    during = rotated.signing(NOW + ROTATED_SECRET_S - 1)
    assert [each.text for each in during] == [fresh, SECRET]
    assert [each.text for each in rotated.signing(NOW + ROTATED_SECRET_S)] == [fresh]
    client = OpenAI(api_key="none")
    headers = dict(headers_of(a_delivery(), during, time.time()))
    for secret in (fresh, SECRET):
        event = client.webhooks.unwrap(a_delivery().body, headers, secret=secret)
        assert event.id == a_delivery().event_id


def test_replacing_a_secret_again_does_not_lengthen_the_life_of_the_first() -> None:
    endpoint = Endpoint("we_1", "t", "", frozenset(), (Secret(SECRET),), NOW)

    twice = endpoint.rotated("whsec_b", NOW).rotated("whsec_c", NOW + 3600)

    assert [s.expires_at for s in twice.secrets] == [
        None,
        NOW + 3600 + ROTATED_SECRET_S,
        NOW + ROTATED_SECRET_S,
    ]
    assert twice.revision == 2


def test_no_more_than_a_few_secrets_sign_however_often_they_are_replaced() -> None:
    endpoint = Endpoint("we_1", "t", "", frozenset(), (Secret(SECRET),), NOW)

    for number in range(10):
        endpoint = endpoint.rotated(f"whsec_{number}", NOW)

    assert [s.text for s in endpoint.signing(NOW)] == [f"whsec_{n}" for n in (9, 8, 7, 6)]


def test_secrets_are_never_in_what_is_printed_or_logged() -> None:
    url = "https://x.example/?token=t"
    endpoint = Endpoint("we_1", "t", url, frozenset(), (Secret(SECRET),), NOW)

    assert SECRET not in repr(endpoint)
    assert "token" not in repr(endpoint) + repr(a_delivery())


def test_a_secret_is_32_bytes_in_base64_behind_its_prefix() -> None:
    assert Secret(SECRET).key() == bytes(range(32))
    with pytest.raises(ValueError, match="32 bytes"):
        secret_of(b"short")


@given(st.integers(200, 299), UNIFORM)
def test_any_2xx_is_a_delivery(status: int, uniform: float) -> None:
    after = a_delivery().after(Answer(status), NOW, uniform)

    assert (after.state, after.due_at, after.attempts) == (DeliveryState.DELIVERED, None, 1)


@given(st.one_of(st.none(), st.integers(100, 199), st.integers(300, 599)), UNIFORM)
def test_everything_else_is_tried_again_except_410(status: int | None, uniform: float) -> None:
    after = a_delivery().after(Answer(status, "why"), NOW, uniform)

    if status == 410:
        assert (after.state, after.due_at) == (DeliveryState.GIVEN_UP, None)
    else:
        assert after.state is DeliveryState.PENDING
        assert after.due_at is not None and 4.0 <= after.due_at - NOW <= 6.0
    assert (after.attempts, after.last_status, after.last_error) == (1, status, "why")


@given(st.lists(UNIFORM, min_size=len(DELAYS_S), max_size=len(DELAYS_S)))
def test_a_delivery_is_given_up_within_a_day_after_nine_attempts(draws: list[float]) -> None:
    delivery, now, waits = a_delivery(), NOW, []
    for draw in draws:
        delivery = delivery.after(Answer(503), now, draw)
        assert delivery.due_at is not None
        waits.append(delivery.due_at - now)
        now = delivery.due_at
    delivery = delivery.after(Answer(503), now, 0.0)

    assert (delivery.state, delivery.attempts) == (DeliveryState.GIVEN_UP, 9)
    assert waits == sorted(waits)
    assert 15 * 3600 < now - NOW < 24 * 3600


@given(st.floats(0, 1e9), UNIFORM)
def test_a_receiver_may_ask_for_more_time_and_not_for_ever(asked_s: float, uniform: float) -> None:
    after = a_delivery().after(Answer(429, retry_after_s=asked_s), NOW, uniform)

    assert after.due_at is not None
    wait_s = after.due_at - NOW
    assert wait_s <= MAX_DELAY_S
    assert wait_s >= min(asked_s, MAX_DELAY_S) - 1e-3


def test_a_receiver_that_keeps_asking_for_time_is_given_up_after_a_day() -> None:
    delivery, now = a_delivery(), NOW
    while delivery.due_at is not None:
        now = delivery.due_at
        delivery = delivery.after(Answer(429, retry_after_s=1e6), now, 0.5)

    assert delivery.state is DeliveryState.GIVEN_UP
    assert now - NOW < 86_400


def test_the_id_stays_the_same_over_attempts_and_the_timestamp_does_not() -> None:
    delivery = a_delivery()
    first = headers_of(delivery, [Secret(SECRET)], NOW)
    later = headers_of(delivery.after(Answer(500), NOW, 0.5), [Secret(SECRET)], NOW + 5)

    assert first["webhook-id"] == later["webhook-id"]
    assert first["webhook-timestamp"] != later["webhook-timestamp"]
    assert first["webhook-signature"] != later["webhook-signature"]


def test_an_endpoint_wants_what_it_was_registered_for() -> None:
    endpoint = Endpoint("we_1", "t", "", frozenset({EventType.JOB_FAILED}), (), NOW)

    assert endpoint.wants(EventType.JOB_FAILED)
    assert not endpoint.wants(EventType.JOB_COMPLETED)
