"""Each function of the built application in the real Lambda runtime, with its sample events.

The functions see their layers and what the runtime brings, nothing of the tests' environment;
AWS is the emulator that the application is deployed to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import ROOT
from tests.e2e.emulator import CREDENTIALS, REGION
from tests.e2e.lambda_runtime import Runtime, lambda_runtime, runtime_packages
from tests.e2e.stack import Stack

SAMPLE_KEY = f"sk-syn-sampleKey001{'a' * 43}"
"""The key in `events/`."""

EVENTS = sorted((ROOT / "events").glob("*.json"))
ENGINE_USERS = {"chat", "run_batch", "ping"}

WITH_POOLS = ("scale",)
"""Functions that are there only with a pool that can be scaled."""

ONE_LOOK = {"AWS_LAMBDA_FUNCTION_TIMEOUT": "19"}
"""Seconds that `scale` has, with its start: it looks again each ten while they last."""

RAISING = {("authorize", "unknown")}
"""Events at which a function is to raise."""

Runtimes = Callable[[str], Runtime]


@pytest.fixture(scope="module")
def runtimes(
    stack: Stack, fleet: Stack, built: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runtimes]:
    """A runtime for each function, started when first asked for."""
    stack.new_key("acme", text=SAMPLE_KEY)
    packages = runtime_packages(tmp_path_factory.mktemp("runtime"))
    logs = tmp_path_factory.mktemp("runtime-logs")
    aws = {"AWS_ENDPOINT_URL": stack.emulator.url, "AWS_REGION": REGION}
    with ExitStack() as started:

        @cache
        def runtime(function: str) -> Runtime:
            deployed = fleet if function in WITH_POOLS else stack
            time = ONE_LOOK if function == "scale" else {}
            layers = ["CoreLayer", *(["EngineLayer"] if function in ENGINE_USERS else [])]
            return started.enter_context(
                lambda_runtime(
                    ROOT / "functions" / function,
                    [*(built.parent / layer / "python" for layer in layers), packages],
                    {**deployed.environment(function), **CREDENTIALS, **aws, **time},
                    logs / f"{function}.log",
                )
            )

        yield runtime


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_the_function_answers_its_event(runtimes: Runtimes, path: Path) -> None:
    function, case, _ = path.name.split(".")

    runtime = runtimes(function)
    ask = runtime.answer if (function, case) in RAISING else runtime.invoke
    answer = ask(json.loads(path.read_text()))

    EXPECTATIONS.get((function, case), EXPECTATIONS[function, ""])(answer)


def is_http(status: int) -> Callable[[Any], None]:
    def check(answer: Any) -> None:
        assert answer["statusCode"] == status, answer

    return check


def reports(failures: int) -> Callable[[Any], None]:
    def check(answer: Any) -> None:
        assert len(answer["batchItemFailures"]) == failures, answer

    return check


def lets_the_bearer_in(answer: Any) -> None:
    assert answer["principalId"] == "sampleKey001"
    assert json.loads(answer["context"]["principal"])["tenant"] == "acme"


def is_unauthorized(answer: Any) -> None:
    assert (answer["errorType"], answer["errorMessage"]) == ("Unauthorized", "Unauthorized")


def names_the_batch(answer: Any) -> None:
    assert answer["batchId"]


def is_done(answer: Any) -> None:
    assert answer == {"done": True, "waitSeconds": 1}


def found_every_worker_well(answer: Any) -> None:
    assert answer["unhealthy"] == []


def names_a_pool_to_measure(answer: Any) -> None:
    assert [pool["pool"] for pool in answer["pools"]] == ["primary"]


def kept_a_profile(answer: Any) -> None:
    assert (answer["model"], answer["pool"]) == ("echo", "primary")
    assert answer["base_ms"] > 0


def stayed_awake(answer: Any) -> None:
    assert answer == {}


def looked_at_the_pools(answer: Any) -> None:
    assert answer["pools"] == 2, "those on ECS: the emulator cannot tell how a function is scaled"


EXPECTATIONS: dict[tuple[str, str], Callable[[Any], None]] = {
    ("api", ""): is_http(200),
    ("api", "submit"): is_http(202),
    ("api", "submit-invalid"): is_http(400),
    ("api", "result-unknown"): is_http(404),
    ("authorize", ""): lets_the_bearer_in,
    ("authorize", "unknown"): is_unauthorized,
    ("chat", ""): is_http(200),
    ("chat", "invalid"): is_http(400),
    ("announce", ""): reports(0),
    ("deliver", ""): reports(0),
    ("dispatch", ""): reports(0),
    ("dispatch", "poison"): reports(1),
    ("run_batch", ""): names_the_batch,
    ("give_back", ""): names_the_batch,
    ("advance_batch", ""): is_done,
    ("profile", ""): names_a_pool_to_measure,
    ("profile", "keep"): kept_a_profile,
    ("profile", "wake"): stayed_awake,
    ("run_batch", "probe"): stayed_awake,
    ("ping", ""): found_every_worker_well,
    ("scale", ""): looked_at_the_pools,
}
