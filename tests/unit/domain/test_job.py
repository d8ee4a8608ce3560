"""The life of a job: the table of transitions, who may hold it, when it is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from synapse.domain.job import (
    MAX_RESEND_AFTER_S,
    OPEN_STATES,
    RESEND_AFTER_S,
    TRANSITIONS,
    Failure,
    Job,
    JobState,
    Lease,
    Payload,
    Usage,
    sources,
)
from tests.factories import NOW, a_job, a_lease, a_running_job, an_outcome

FINAL = [state for state in JobState if state.is_final]
STATES = st.sampled_from(JobState)
OWNERS = st.sampled_from(["batch-1", "batch-2"])
TIMES = st.floats(NOW, NOW + 1e5, allow_nan=False)


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(JobState)


def test_exactly_four_states_are_final() -> None:
    assert set(FINAL) == set(JobState) - {JobState.QUEUED, JobState.RUNNING}
    assert set(FINAL) == set(JobState) - OPEN_STATES


@given(STATES, STATES)
def test_sources_are_the_transitions_read_backwards(source: JobState, target: JobState) -> None:
    assert (source in sources(target)) == (target in TRANSITIONS[source])


def test_every_open_state_can_reach_every_end_but_completion_needs_a_run() -> None:
    assert sources(JobState.COMPLETED) == {JobState.RUNNING}
    for state in (JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED):
        assert sources(state) == OPEN_STATES


@pytest.mark.parametrize("state", sorted(OPEN_STATES))
def test_no_job_ends_open(state: JobState) -> None:
    with pytest.raises(ValueError, match=state):
        an_outcome(a_job().id, state)
    with pytest.raises(ValueError, match=state):
        a_job().closed(state, None, NOW)


def test_a_waiting_job_is_anybodys() -> None:
    assert a_job().can_be_claimed("anybody", NOW)


@given(now=TIMES, expires_at=TIMES)
def test_a_running_job_is_its_owners_until_its_lease_ends(now: float, expires_at: float) -> None:
    job = a_job().claimed(Lease("batch-1", expires_at), NOW)

    assert job.can_be_claimed("batch-1", now)
    assert job.can_be_claimed("batch-2", now) == (expires_at <= now)


@pytest.mark.parametrize("state", FINAL)
def test_an_ended_job_is_nobodys(state: JobState) -> None:
    job = a_running_job().closed(state, None, NOW)

    assert not job.can_be_claimed("batch-1", NOW + 1e9)
    assert not job.is_held_by("batch-1")


def test_only_the_owner_holds_a_running_job() -> None:
    job = a_running_job("batch-1")

    assert job.is_held_by("batch-1")
    assert not job.is_held_by("batch-2")
    assert not a_job().is_held_by("batch-1")


def test_taking_an_abandoned_job_over_counts_as_a_loss() -> None:
    taken = a_running_job("batch-1").claimed(a_lease("batch-2"), NOW + 700)

    assert (taken.losses, taken.started_at) == (1, NOW + 700)


def test_taking_ones_own_job_again_is_no_loss() -> None:
    again = a_running_job("batch-1").claimed(a_lease("batch-1"), NOW + 700)

    assert (again.losses, again.started_at) == (0, NOW)


def test_what_is_back_in_its_queue_has_not_begun() -> None:
    waiting = a_running_job("batch-1").requeued(NOW + 5, lost=False)

    assert (waiting.state, waiting.lease, waiting.started_at) == (JobState.QUEUED, None, None)


def test_an_outcome_is_the_end() -> None:
    outcome = an_outcome(a_job().id, result=Payload("{}"), usage=Usage(3, 4))

    job = a_running_job().settled(outcome, NOW + 2)

    assert (job.state, job.lease, job.finished_at) == (JobState.COMPLETED, None, NOW + 2)
    assert (job.result, job.usage) == (outcome.result, Usage(3, 4))
    assert Usage(3, 4).total_tokens == 7


def test_closing_keeps_why() -> None:
    job = a_running_job().closed(JobState.EXPIRED, Failure("late", "too late"), NOW + 2)

    assert (job.state, job.failure) == (JobState.EXPIRED, Failure("late", "too late"))
    assert (job.lease, job.finished_at) == (None, NOW + 2)


def test_a_waiting_job_is_due_when_its_message_must_have_been_lost() -> None:
    assert a_job().due_at == NOW + RESEND_AFTER_S


def test_a_running_job_is_due_when_its_lease_ends() -> None:
    assert a_running_job(lease_s=60).due_at == NOW + 60


@given(st.integers(0, 10_000))
def test_patience_doubles_with_each_time_in_vain_up_to_an_hour(resends: int) -> None:
    job = a_job(resends=resends, deadline_at=NOW + 1e6)
    assert job.due_at is not None

    patience_s = job.due_at - NOW
    assert patience_s == min(MAX_RESEND_AFTER_S, RESEND_AFTER_S * 2 ** min(resends, 20))


@given(st.integers(2, 10_000))
def test_what_was_given_back_however_often_is_due_later_than_what_runs_but_soon(sends: int) -> None:
    job = a_job(sends=sends, deadline_at=NOW + 1e6)

    assert job.due_at == NOW + 2 * RESEND_AFTER_S


def test_only_a_message_that_nobody_took_was_sent_in_vain() -> None:
    late = NOW + RESEND_AFTER_S
    job = a_job(deadline_at=NOW + 1e6)

    assert job.requeued(late, lost=False, unanswered=True).resends == 1
    assert job.requeued(late, lost=False).resends == 0  # taken, and given back before it was begun
    assert job.claimed(Lease("batch-1", NOW + 60), NOW).requeued(late, lost=True).resends == 0


@given(st.floats(0, 1e5), st.booleans())
def test_no_open_job_is_due_later_than_its_deadline(timeout_s: float, running: bool) -> None:
    job = a_job(deadline_at=NOW + timeout_s)
    job = job.claimed(a_lease(), NOW) if running else job

    assert job.due_at is not None
    assert job.due_at <= job.deadline_at


@pytest.mark.parametrize("state", FINAL)
def test_an_ended_job_is_never_due(state: JobState) -> None:
    assert a_running_job().closed(state, None, NOW).due_at is None


class Life(RuleBasedStateMachine):
    """One job, changed at random as the stores would allow it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.job = a_job()

    def become(self, job: Job) -> None:
        again = self.job.state is job.state is JobState.RUNNING
        waits = self.job.state is job.state is JobState.QUEUED
        assert again or waits or job.state in TRANSITIONS[self.job.state]
        assert job.losses >= self.job.losses
        assert job.sends >= self.job.sends
        self.job = job

    @rule(owner=OWNERS, lease_s=st.floats(0, 1000))
    def claim(self, owner: str, lease_s: float) -> None:
        if self.job.can_be_claimed(owner, self.now):
            self.become(self.job.claimed(Lease(owner, self.now + lease_s), self.now))

    @rule(lost=st.booleans(), unanswered=st.booleans())
    def requeue(self, lost: bool, unanswered: bool) -> None:
        if not self.job.state.is_final:
            self.become(self.job.requeued(self.now, lost=lost, unanswered=unanswered))

    @rule(owner=OWNERS, state=st.sampled_from(FINAL))
    def settle(self, owner: str, state: JobState) -> None:
        if self.job.is_held_by(owner):
            self.become(self.job.settled(an_outcome(self.job.id, state), self.now))

    @rule(state=st.sampled_from([JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED]))
    def close(self, state: JobState) -> None:
        if self.job.state in sources(state):
            self.become(self.job.closed(state, None, self.now))

    @rule(seconds=st.floats(0, 1000))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def a_lease_is_there_exactly_while_it_runs(self) -> None:
        assert (self.job.lease is not None) == (self.job.state is JobState.RUNNING)

    @invariant()
    def an_end_is_noted_exactly_when_it_has_ended(self) -> None:
        assert (self.job.finished_at is not None) == self.job.state.is_final
        assert (self.job.due_at is None) == self.job.state.is_final


TestLife = Life.TestCase
