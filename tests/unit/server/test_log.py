"""The lines of one machine's log, which name what they are about."""

from __future__ import annotations

import logging
from types import ModuleType

import pytest

from synapse_server import batch_driver, dispatch_loop, webhook_loop
from synapse_server.log import LineFormatter


def line_of(name: str, text: str, **about: object) -> str:
    record = logging.makeLogRecord({"name": name, "levelname": "WARNING", "msg": text, **about})
    return LineFormatter().format(record).partition(" WARNING ")[2]


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"request_id": "req-1"}, "request_id=req-1"),
        ({"batch": "batch_1", "lines": [1, 2]}, "batch=batch_1 lines=[1, 2]"),
        (
            {"host": "hooks.example.com", "last_status": None},
            "host=hooks.example.com last_status=None",
        ),
        ({"model": "two words"}, "model='two words'"),
        ({"job": "a\nWARNING synapse: b"}, r"job='a\nWARNING synapse: b'"),
        ({"tenant": ""}, "tenant=''"),
    ],
)
def test_a_line_names_what_it_is_about(about: dict[str, object], told: str) -> None:
    assert line_of("synapse.api", "it broke", **about) == f"synapse.api: it broke {told}"


def test_a_line_about_nothing_in_particular_is_its_text() -> None:
    assert line_of("synapse", "it broke") == "synapse: it broke"


@pytest.mark.parametrize("module", [batch_driver, dispatch_loop, webhook_loop])
def test_the_servers_own_loops_name_it_too(module: ModuleType) -> None:
    name = module.logger.name

    assert line_of(name, "held up", batch="batch_1") == f"{name}: held up batch=batch_1"


def test_what_others_add_to_their_records_is_left_out() -> None:
    assert line_of("uvicorn.error", "hello", color_message="\x1b[1mhello") == "uvicorn.error: hello"
    assert line_of("synapses", "hello", who="me") == "synapses: hello"


def test_a_traceback_comes_behind_the_line() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        caught = (ValueError, error, error.__traceback__)
    told = line_of("synapse.api", "request failed", request_id="req-1", exc_info=caught)

    assert told.startswith("synapse.api: request failed request_id=req-1\nTraceback")
    assert told.endswith("ValueError: no")
