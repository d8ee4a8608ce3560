"""JobStore: random sequences of calls, held against the in-memory store."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.contract.job_store_machine import machine_for
from tests.contract.openers import JOB_STORES

# Emulated services take milliseconds a call: fewer lives for them.
LIVES = {"memory": 25, "dynamodb": 12}


@pytest.mark.parametrize("name", JOB_STORES)
def test_any_sequence_of_calls_is_answered_as_in_memory(name: str) -> None:
    run_state_machine_as_test(
        machine_for(JOB_STORES[name]),
        settings=settings(
            max_examples=LIVES.get(name, 40),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
