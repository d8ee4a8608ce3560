"""What the server makes of the changes that its worker goes through."""

from __future__ import annotations

import logging

import pytest

from synapse_server.worker import Engine
from synapse_worker.supervisor import WorkerState, WorkerStatus


def test_jobs_are_held_back_while_the_worker_is_away() -> None:
    engine = Engine("127.0.0.1:8001")
    assert engine.ready.is_set()

    engine.changed(WorkerStatus(WorkerState.READY))
    engine.changed(WorkerStatus(WorkerState.RESTARTING, "Triton died", "See its log"))
    assert not engine.ready.is_set()

    engine.changed(WorkerStatus(WorkerState.READY))
    assert engine.ready.is_set()


def test_a_loss_is_said_once_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine("127.0.0.1:8001")
    engine.changed(WorkerStatus(WorkerState.READY))

    with caplog.at_level(logging.INFO):
        engine.changed(WorkerStatus(WorkerState.RESTARTING, "Triton died", "See its log"))
        engine.changed(WorkerStatus(WorkerState.READY))

    assert [record.getMessage() for record in caplog.records] == [
        "the worker is restarted: Triton died"
    ]


def test_a_worker_that_never_came_up_is_told_by_whoever_started_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Engine("").changed(WorkerStatus(WorkerState.FAILED, "no memory", "Add some"))

    assert caplog.records == []
