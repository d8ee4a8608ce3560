"""The function that dispatches on AWS: what it reports comes again."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from functions.dispatch import handler as dispatch
from synapse.adapters.codec import message_to_json
from synapse.domain.errors import Unavailable
from tests.factories import a_message, a_pool
from tests.fakes import MemoryRegistry
from tests.faults import failing_before
from tests.lambda_context import a_context
from tests.unit.application.world import CHAT, World

CONTEXT = a_context("dispatch")
RECORDS = [
    {
        "messageId": f"m{number}",
        "body": message_to_json(a_message(model=model)),
        "eventSourceARN": "normal",
    }
    for number, model in enumerate(("echo", CHAT, CHAT))
]


def reported(world: World, monkeypatch: pytest.MonkeyPatch, records: list[Any]) -> set[str]:
    """Hand over messages; which of them are reported."""
    queue = SimpleNamespace(gathers=lambda arn: arn == "low")
    target = SimpleNamespace(
        dispatcher=world.dispatcher,
        parts=SimpleNamespace(queue=queue),
        telemetry_flushed=nullcontext,
    )
    monkeypatch.setattr(dispatch, "target", lambda: target)
    monkeypatch.setattr(dispatch, "run", asyncio.run)
    monkeypatch.setattr(dispatch.tracer, "disabled", True)
    answer = dispatch.handler({"Records": records}, CONTEXT)
    return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}


def test_a_message_of_a_model_without_a_pool_does_not_hold_up_those_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = asyncio.run(World().registry.models())
    world = World(registry=MemoryRegistry(models, [a_pool(models=frozenset({CHAT}))]))

    assert reported(world, monkeypatch, RECORDS) == {"m0"}

    assert [len(order.batch.job_ids) for order in world.starter.orders] == [2]


def test_a_message_that_cannot_be_read_does_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    bad = {"messageId": "bad", "body": "{", "eventSourceARN": "normal"}
    assert reported(world, monkeypatch, [bad, *RECORDS]) == {"bad"}

    assert len(world.starter.orders) == 2


def test_where_nothing_could_be_started_all_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.starter = failing_before(world.starter, start=[Unavailable("throttled")])

    assert reported(world, monkeypatch, RECORDS) == {"m0", "m1", "m2"}


def test_what_comes_of_the_queue_that_gathers_is_gathered_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(gathers=True)
    for model in ("echo", CHAT):
        for pool in ("gpu", "cpu"):
            world.slots.occupy(model, pool, 8)

    assert reported(world, monkeypatch, RECORDS) == set()
    assert (len(world.gathered), world.starter.orders) == (3, [])

    gathered = [{**record, "eventSourceARN": "low"} for record in RECORDS]
    assert reported(world, monkeypatch, gathered) == set()
    assert (len(world.gathered), len(world.starter.orders)) == (3, 2)
