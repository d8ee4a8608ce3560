"""The profiler's state machine, run: which way it takes when workers are late, fail, or refuse."""

from __future__ import annotations

from typing import Any

from tests.infra import asl

MACHINE = asl.machine("profiler")

pytestmark = asl.needs_node

UNAVAILABLE = {"error": "EngineUnavailable", "cause": "no worker"}


def a_pool(name: str, *models: str) -> dict[str, Any]:
    named = [{"model": model, "version": "1"} for model in models]
    return {"pool": name, "runnerArn": f"arn:{name}", "budgetSeconds": 60, "models": named}


def more(*measurements: str) -> dict[str, Any]:
    return {"payload": {"done": False, "measurements": list(measurements)}}


def enough(*measurements: str) -> dict[str, Any]:
    return {"payload": {"done": True, "measurements": list(measurements)}}


def run(
    pools: list[dict[str, Any]], measured: list[dict[str, Any]], **script: list[dict[str, Any]]
) -> Any:
    answers = {"Plan": [{"payload": {"pools": pools}}], "Measure": measured}
    nothing = [{"payload": dict[str, Any]()}]
    script = {**answers, "Wake pool": nothing, "Keep profile": nothing, **script}
    return asl.run(MACHINE, {"model": "echo"}, script)


def calls(ended: Any, state: str) -> list[tuple[str, str, str, list[str]]]:
    return [
        (each["function"], payload["pool"], payload["model"], payload["measurements"])
        for each in ended["calls"]
        if each["state"] == state
        for payload in [each["payload"]]
    ]


def test_each_model_is_measured_where_it_runs_until_it_is_enough_and_then_kept() -> None:
    pools = [a_pool("cpu", "echo", "minilm"), a_pool("gpu", "echo")]
    ended = run(pools, [more("a"), more("a", "b"), enough("a", "b"), more("c"), enough("c")])

    assert ended["status"] == "SUCCEEDED"
    assert ended["calls"][0]["payload"] == {"step": "plan", "wish": {"model": "echo"}}
    assert calls(ended, "Measure")[:5] == [
        ("arn:cpu", "cpu", "echo", []),
        ("arn:cpu", "cpu", "echo", ["a"]),
        ("arn:cpu", "cpu", "echo", ["a", "b"]),
        ("arn:cpu", "cpu", "minilm", []),
        ("arn:cpu", "cpu", "minilm", ["c"]),
    ]
    assert calls(ended, "Keep profile") == [
        ("${ProfileArn}", "cpu", "echo", ["a", "b"]),
        ("${ProfileArn}", "cpu", "minilm", ["c"]),
        ("${ProfileArn}", "gpu", "echo", ["c"]),
    ]
    steps = [each["payload"]["step"] for each in ended["calls"]]
    assert steps[1:8] == [*["wake", "measure"] * 3, "keep"]
    assert ended["calls"][2]["payload"]["budgetSeconds"] == 60


def test_the_pool_itself_is_woken_before_each_measurement_by_a_function_that_can() -> None:
    ended = run([a_pool("gpu", "echo")], [UNAVAILABLE, UNAVAILABLE, more("a"), enough("a")])

    woken = [each for each in ended["calls"] if each["state"] == "Wake pool"]
    assert {each["function"] for each in woken} == {"${ProfileArn}"}
    assert [each["payload"] for each in woken] == [{"step": "wake", "pool": "gpu"}] * 4


def test_a_pool_that_could_not_be_woken_is_measured_all_the_same() -> None:
    refused = {"error": "Lambda.TooManyRequestsException", "cause": "not now"}
    ended = run([a_pool("gpu", "echo")], [more("a"), enough("a")], **{"Wake pool": [refused]})

    assert ended["status"] == "SUCCEEDED"
    assert calls(ended, "Keep profile") == [("${ProfileArn}", "gpu", "echo", ["a"])]


def test_a_worker_that_has_to_come_up_is_waited_for() -> None:
    ended = run([a_pool("gpu", "echo")], [*[UNAVAILABLE] * 5, more("a"), enough("a")])

    assert ended["status"] == "SUCCEEDED"
    assert ended["waits"] == 5 * 30
    assert calls(ended, "Keep profile") == [("${ProfileArn}", "gpu", "echo", ["a"])]


def test_a_worker_that_does_not_come_stops_neither_the_others_nor_for_ever() -> None:
    pools = [a_pool("gpu", "echo"), a_pool("cpu", "echo")]
    ended = run(pools, [*[UNAVAILABLE] * 21, more("a"), enough("a")])

    assert ended["waits"] == 20 * 30
    assert calls(ended, "Keep profile") == [("${ProfileArn}", "cpu", "echo", ["a"])]
    assert ended["status"] == "FAILED"
    assert ended["error"]["Error"] == "ProfilesMissing"
    assert '"gpu"' in ended["error"]["Cause"]
    assert '"EngineUnavailable"' in ended["error"]["Cause"]
    assert '"cpu"' not in ended["error"]["Cause"]


def test_a_model_that_cannot_be_fitted_leaves_the_next_its_turn_and_nothing_of_its_own() -> None:
    refusal: dict[str, Any] = {"error": "ProfilingError", "cause": "too little"}
    ended = run(
        [a_pool("cpu", "echo", "minilm")],
        [enough("a"), more("b"), enough("b")],
        **{"Keep profile": [refusal, {"payload": {}}]},
    )

    assert calls(ended, "Measure")[1] == ("arn:cpu", "cpu", "minilm", [])
    assert calls(ended, "Keep profile")[1] == ("${ProfileArn}", "cpu", "minilm", ["b"])
    assert ended["error"]["Error"] == "ProfilesMissing"


def test_where_everything_has_its_profile_nothing_is_done() -> None:
    ended = run([], [])

    assert ended["status"] == "SUCCEEDED"
    assert len(ended["calls"]) == 1


def test_what_cannot_be_planned_is_told() -> None:
    refusal = {"error": "ProfilingError", "cause": "nothing is served of model 'x'"}
    ended = run([], [], Plan=[refusal])

    assert ended["error"]["Error"] == "NotPlanned"
    assert "nothing is served of model 'x'" in ended["error"]["Cause"]
