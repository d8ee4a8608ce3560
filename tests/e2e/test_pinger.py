"""The pinger: on its schedule, and what it leaves behind."""

from __future__ import annotations

import json
import time

from tests.e2e.stack import Stack
from tests.e2e.worker import MODELS
from tests.patience import PATIENCE_S


def test_the_pinger_is_scheduled_every_minute(stack: Stack) -> None:
    scheduler = stack.emulator.scheduler
    names = [schedule["Name"] for schedule in scheduler.list_schedules()["Schedules"]]

    schedules = [scheduler.get_schedule(Name=name) for name in names]

    (ping,) = [s for s in schedules if s["Target"]["Arn"] == stack.outputs["PingFunctionArn"]]
    assert ping["ScheduleExpression"] == "rate(1 minute)"
    assert ping["State"] == "ENABLED"


def test_the_schedule_invokes_the_pinger(stack: Stack) -> None:
    """Within a minute of the deploy, which has mostly passed by now."""
    deadline = time.monotonic() + PATIENCE_S

    # It stands before the test that invokes the pinger by hand.
    while not any('"message":"pinged"' in line for line in stack.log("ping")):
        assert time.monotonic() < deadline, "the schedule did not fire"
        time.sleep(1)


def test_a_ping_runs_a_real_inference_on_each_model_and_records_its_health(stack: Stack) -> None:
    seen = stack.invoke("PingFunctionArn", {})

    health = stack.call("GET", "/health").json()

    assert seen["unhealthy"] == []
    assert seen["workers"] == len(MODELS.split(","))
    assert "smollm2-135m-instruct" in json.dumps(health)
    assert "synapse_worker_healthy" in stack.call("GET", "/metrics").body.decode()
