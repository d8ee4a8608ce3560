"""Planning: nothing lost, nothing twice, limits and order kept, suspects alone."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.batching import (
    Batch,
    BatchPolicy,
    JobMessage,
    filling,
    gather_for_s,
    plan_batches,
)
from synapse.domain.extension import NO_EXTENSIONS
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import JobId, Priority
from tests.factories import NOW, a_message, counted_ids

POLICIES = st.builds(
    BatchPolicy, max_items=st.integers(1, 8), max_tokens=st.integers(1, 200), max_wait_ms=st.just(5)
)
MESSAGES = st.lists(
    st.builds(
        JobMessage,
        job_id=st.integers(0, 30).map(lambda n: JobId(f"job-{n}")),
        model=st.sampled_from(["echo", "smollm2"]),
        version=st.sampled_from(["1", "2"]),
        priority=st.sampled_from(Priority),
        tokens=st.integers(0, 100),
        sent_at=st.integers(0, 50).map(float),
        deadline_at=st.just(NOW),
        losses=st.sampled_from([0, 0, 0, 1]),
        items=st.sampled_from([1, 1, 1, 4]),
    ),
    max_size=40,
)
UNIQUE = MESSAGES.map(lambda messages: list({m.job_id: m for m in messages}.values()))


def plan(messages: list[JobMessage], policy: BatchPolicy) -> list[Batch]:
    return plan_batches(messages, lambda model: policy, counted_ids())


def turn(message: JobMessage) -> tuple[int, float]:
    return message.priority.rank, message.sent_at


@given(MESSAGES, POLICIES)
def test_every_job_is_in_exactly_one_batch(messages: list[JobMessage], policy: BatchPolicy) -> None:
    planned = [job_id for batch in plan(messages, policy) for job_id in batch.job_ids]

    assert sorted(planned) == sorted({message.job_id for message in messages})


@given(UNIQUE, POLICIES)
def test_a_batch_is_of_one_model_and_version(
    messages: list[JobMessage], policy: BatchPolicy
) -> None:
    by_id = {message.job_id: message for message in messages}

    for batch in plan(messages, policy):
        for job_id in batch.job_ids:
            assert (by_id[job_id].model, by_id[job_id].version) == (batch.model, batch.version)


@given(UNIQUE, POLICIES)
def test_no_batch_passes_a_limit_but_for_a_job_alone(
    messages: list[JobMessage], policy: BatchPolicy
) -> None:
    by_id = {message.job_id: message for message in messages}

    for batch in plan(messages, policy):
        jobs = [by_id[job_id] for job_id in batch.job_ids]
        assert batch.tokens == sum(job.items * job.tokens for job in jobs)
        is_within = sum(job.items for job in jobs) <= policy.max_items
        assert (is_within and batch.tokens <= policy.max_tokens) or len(jobs) == 1


def test_a_batch_tells_how_many_items_each_of_its_jobs_has() -> None:
    [batch] = plan(
        [a_message(items=3, sent_at=NOW), a_message(sent_at=NOW + 1)], BatchPolicy(8, 1000)
    )

    assert batch.items == batch.items_of_jobs == (3, 1)


@given(st.lists(st.integers(1, 8)), st.integers(0, 30))
def test_room_is_filled_and_only_the_last_may_go_beyond_it(items: list[int], room: int) -> None:
    number = filling(items, room)

    assert number == 0 or sum(items[: number - 1]) < room
    assert number == len(items) or sum(items[:number]) >= room


def test_jobs_that_require_different_things_of_engines_travel_apart() -> None:
    messages = [a_message(requires=requires) for requires in (TOKEN_IDS, NO_EXTENSIONS, TOKEN_IDS)]
    first, plain, last = messages

    batches = plan(messages, BatchPolicy(8, 1000))

    assert sorted(sorted(batch.job_ids) for batch in batches) == sorted(
        [sorted([first.job_id, last.job_id]), [plain.job_id]]
    )


@given(UNIQUE, POLICIES)
def test_suspects_travel_alone(messages: list[JobMessage], policy: BatchPolicy) -> None:
    suspects = {message.job_id for message in messages if message.is_suspect}

    for batch in plan(messages, policy):
        assert len(batch.job_ids) == 1 or not suspects & set(batch.job_ids)


@given(UNIQUE, POLICIES)
def test_jobs_keep_their_order_and_batches_theirs(
    messages: list[JobMessage], policy: BatchPolicy
) -> None:
    by_id = {message.job_id: message for message in messages}
    batches = plan(messages, policy)

    for kind in {(batch.model, batch.version) for batch in batches}:
        turns = [
            [turn(by_id[job_id]) for job_id in batch.job_ids]
            for batch in batches
            if (batch.model, batch.version) == kind
        ]
        assert turns == [sorted(batch) for batch in turns]
        assert [batch[0] for batch in turns] == sorted(batch[0] for batch in turns)


@given(UNIQUE, POLICIES)
def test_no_batch_could_have_held_the_next_job_too(
    messages: list[JobMessage], policy: BatchPolicy
) -> None:
    plain = [m for m in messages if not m.is_suspect and m.model == "echo" and m.version == "1"]
    by_id = {message.job_id: message for message in plain}
    batches = plan(plain, policy)

    for batch, following in pairwise(batches):
        upcoming = by_id[following.job_ids[0]]
        items = sum(by_id[job_id].items for job_id in (*batch.job_ids, upcoming.job_id))
        tokens = batch.tokens + upcoming.items * upcoming.tokens
        assert items > policy.max_items or tokens > policy.max_tokens


@given(UNIQUE, POLICIES, st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_delivery(
    messages: list[JobMessage], policy: BatchPolicy, random: Random
) -> None:
    distinct = list({(m.model, m.version, *turn(m)): m for m in messages}.values())
    shuffled = list(distinct)
    random.shuffle(shuffled)

    assert plan(shuffled, policy) == plan(distinct, policy)


def test_a_job_named_twice_is_planned_by_what_was_known_last() -> None:
    stale = a_message(job_id=JobId("job-1"), sent_at=NOW)
    later = a_message(job_id=JobId("job-1"), sent_at=NOW + 120, losses=1)
    other = a_message(job_id=JobId("job-2"))
    policy = BatchPolicy(max_items=8, max_tokens=1000)

    for messages in ([stale, later, other], [later, other, stale]):
        planned = {batch.job_ids for batch in plan(messages, policy)}
        assert planned == {(JobId("job-1"),), (JobId("job-2"),)}


def test_a_suspect_does_not_overtake_what_comes_before_it() -> None:
    first = a_message(priority=Priority.HIGH)
    suspect = a_message(priority=Priority.LOW, losses=1)
    policy = BatchPolicy(max_items=8, max_tokens=1000)

    batches = plan([suspect, first], policy)

    assert [batch.job_ids for batch in batches] == [(first.job_id,), (suspect.job_id,)]


def test_each_model_has_its_own_policy() -> None:
    messages = [a_message(model=model) for model in ("echo", "smollm2") for _ in range(4)]
    policies = {"echo": BatchPolicy(4, 1000), "smollm2": BatchPolicy(1, 1000)}

    batches = plan_batches(messages, policies.__getitem__, counted_ids())

    assert sorted((batch.model, len(batch.job_ids)) for batch in batches) == [
        ("echo", 4),
        *[("smollm2", 1)] * 4,
    ]


@pytest.mark.parametrize("limits", [(0, 1, 0.0), (1, 0, 0.0), (1, 1, -1.0)])
def test_a_policy_that_could_plan_nothing_is_refused(limits: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="policy"):
        BatchPolicy(*limits)


AGES = st.floats(0, 10)
COUNTS = st.integers(1, 100)


@given(COUNTS, AGES, POLICIES)
def test_an_idle_worker_is_never_kept_waiting(
    waiting: int, age_s: float, policy: BatchPolicy
) -> None:
    assert gather_for_s(waiting, age_s, 0, policy) == 0


@given(AGES, COUNTS, POLICIES)
def test_a_full_batch_never_waits(age_s: float, in_flight: int, policy: BatchPolicy) -> None:
    assert gather_for_s(policy.max_items, age_s, in_flight, policy) == 0


@given(COUNTS, AGES, COUNTS, POLICIES)
def test_no_job_waits_longer_than_the_policy_says(
    waiting: int, age_s: float, in_flight: int, policy: BatchPolicy
) -> None:
    longer_s = gather_for_s(waiting, age_s, in_flight, policy)

    assert longer_s >= 0
    assert longer_s == 0 or age_s + longer_s == pytest.approx(policy.max_wait_ms / 1000)


def test_a_clock_that_is_put_back_makes_no_job_wait_longer() -> None:
    policy = BatchPolicy(8, 8192, max_wait_ms=5.0)

    assert gather_for_s(1, -3600.0, 1, policy) == 0.005


def test_nothing_waiting_has_no_moment_to_leave() -> None:
    with pytest.raises(ValueError, match="nothing is waiting"):
        gather_for_s(0, 0.0, 1, BatchPolicy(1, 1))
