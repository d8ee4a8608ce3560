"""The function that gives batches back on AWS counts those that were lost, and no others."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from functions.give_back import handler as give_back
from synapse.adapters.telemetry.emf import EmfTelemetry
from tests.infra.translation import MONITORING, read
from tests.lambda_context import a_context

CONTEXT = a_context("give_back")


class Target:
    """A target that gives nothing back."""

    def __init__(self) -> None:
        self.telemetry = EmfTelemetry("give_back")

    async def give_back(self, *_: object, **__: object) -> None:
        """Nobody has the jobs."""

    @contextlib.contextmanager
    def telemetry_flushed(self) -> Iterator[None]:
        yield
        self.telemetry.flush()


def counted(
    error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, Any]]:
    """The metrics that are written for a batch that came back with an error."""
    made = Target()
    monkeypatch.setattr(give_back, "target", lambda: made)
    monkeypatch.setattr(give_back.tracer, "disabled", True)
    event = {"batchId": "b", "jobIds": ["j"], "error": {"Error": error, "Cause": ""}}
    give_back.handler(event, CONTEXT)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if "_aws" in line]


@pytest.mark.parametrize("error", ["EngineLost", "Sandbox.Timedout", "KeyError"])
def test_a_batch_that_was_lost_is_counted_where_the_alarm_looks(
    error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alarm = read(MONITORING)["Resources"]["BatchesLostAlarm"]["Properties"]

    (line,) = counted(error, monkeypatch, capsys)

    (metrics,) = line["_aws"]["CloudWatchMetrics"]
    assert line["BatchesLost"] == [1.0]
    assert (metrics["Namespace"], metrics["Dimensions"]) == (alarm["Namespace"], [["service"]])
    assert alarm["MetricName"] == "BatchesLost"
    assert alarm["Dimensions"] == [{"Name": "service", "Value": line["service"]}]


@pytest.mark.parametrize("error", ["EngineUnavailable", "Lambda.TooManyRequestsException"])
def test_one_that_found_no_worker_or_no_slot_is_not(
    error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a worker starts that is so many times a minute, and nothing is wrong."""
    assert counted(error, monkeypatch, capsys) == []
