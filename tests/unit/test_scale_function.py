"""The function that sets on AWS how many workers there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from functions.scale import handler as scale
from synapse.domain.errors import Unavailable
from tests.infra.translation import MONITORING, TEMPLATE, read
from tests.lambda_context import a_context

CONTEXT = a_context("scale")


class Target:
    """An autoscaler with pools that bring no worker up."""

    def __init__(self, stuck: Sequence[str] = ()) -> None:
        self.autoscaler = SimpleNamespace(
            settle=self._settle, decisions=lambda: [1, 2], stuck=lambda: stuck
        )
        self.flushed = False
        self.noted: list[Sequence[str]] = []
        self.can_note = True

    async def _settle(self, for_s: float, every_s: float) -> list[Any]:
        return [SimpleNamespace(pool="gpu", desired=2)]

    async def note_stuck(self, pools: Sequence[str]) -> None:
        if not self.can_note:
            raise Unavailable("throttled")
        self.noted.append(pools)

    @contextlib.contextmanager
    def telemetry_flushed(self) -> Iterator[None]:
        yield
        self.flushed = True


def handled(target: Target, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(scale, "fleet_target", lambda: target)
    monkeypatch.setattr(scale.tracer, "disabled", True)
    answer: dict[str, Any] = scale.handler({}, CONTEXT)
    return answer


def test_what_was_decided_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target()

    assert handled(target, monkeypatch) == {"pools": 2, "changed": {"gpu": 2}}
    assert target.flushed
    assert target.noted == []


@pytest.mark.parametrize("can_note", [True, False])
def test_pools_without_a_worker_for_too_long_make_an_error_once_all_is_done(
    monkeypatch: pytest.MonkeyPatch, can_note: bool
) -> None:
    target = Target(["gpu", "neuron"])
    target.can_note = can_note

    with pytest.raises(RuntimeError, match="no worker comes up in: gpu, neuron"):
        handled(target, monkeypatch)

    assert target.flushed
    assert target.noted == ([["gpu", "neuron"]] if can_note else [])


def test_its_errors_have_an_alarm_and_are_not_tried_again() -> None:
    alarm = read(MONITORING)["Resources"]["ScaleErrorsAlarm"]["Properties"]
    function = read(TEMPLATE)["Resources"]["ScaleFunction"]["Properties"]

    assert alarm["MetricName"] == "Errors"
    assert alarm["Dimensions"] == [{"Name": "FunctionName", "Value": {"Ref": "ScaleFunction"}}]
    tries = [
        function["EventInvokeConfig"],
        function["Events"]["EveryMinute"]["Properties"]["RetryPolicy"],
    ]
    assert [each["MaximumRetryAttempts"] for each in tries] == [0, 0]
