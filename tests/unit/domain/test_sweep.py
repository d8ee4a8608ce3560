"""What becomes of open jobs that nobody has moved for too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.job import Job, JobState
from synapse.domain.sweep import Remedy, SweepPolicy
from tests.factories import NOW, a_job, a_running_job

POLICY = SweepPolicy(max_losses=3)
JOBS = st.builds(
    lambda running, timeout_s, losses: (a_running_job if running else a_job)(
        deadline_at=NOW + timeout_s, losses=losses
    ),
    running=st.booleans(),
    timeout_s=st.floats(1, 5000),
    losses=st.integers(0, 5),
)
LATER = st.floats(0, 10_000).map(lambda seconds: NOW + seconds)


@given(JOBS, LATER)
def test_what_is_not_due_is_left_alone_and_only_that(job: Job, now: float) -> None:
    assert job.due_at is not None

    assert (POLICY.remedy(job, now) is Remedy.LEAVE) == (job.due_at > now)


@given(JOBS, LATER)
def test_exactly_what_is_past_its_deadline_expires(job: Job, now: float) -> None:
    assert (POLICY.remedy(job, now) is Remedy.EXPIRE) == (job.deadline_at <= now)


@given(JOBS, LATER)
def test_only_a_job_that_cost_too_many_workers_is_given_up(job: Job, now: float) -> None:
    if POLICY.remedy(job, now) is Remedy.GIVE_UP:
        assert job.state is JobState.RUNNING
        assert job.losses >= POLICY.max_losses - 1


def test_a_lost_message_is_sent_again_however_often_workers_were_lost() -> None:
    job = a_job(losses=99)

    assert POLICY.remedy(job, NOW + 121) is Remedy.RESEND


@pytest.mark.parametrize(
    ("losses", "remedy"),
    [(0, Remedy.RESEND), (1, Remedy.RESEND), (2, Remedy.GIVE_UP), (3, Remedy.GIVE_UP)],
)
def test_the_third_lost_worker_is_the_last(losses: int, remedy: Remedy) -> None:
    job = a_running_job(lease_s=60, losses=losses)

    assert POLICY.remedy(job, NOW + 60) is remedy


def test_coming_back_without_a_loss_never_spends_a_job() -> None:
    job = a_running_job(losses=99)

    assert not POLICY.is_spent(job, lost=False)
    assert POLICY.is_spent(job, lost=True)


@pytest.mark.parametrize("state", [state for state in JobState if state.is_final])
def test_an_ended_job_is_left_alone(state: JobState) -> None:
    job = a_running_job().closed(state, None, NOW)

    assert POLICY.remedy(job, NOW + 1e9) is Remedy.LEAVE
