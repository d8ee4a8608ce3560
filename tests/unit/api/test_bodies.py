"""Bodies that are refused before anybody reads them: compressed, or nested beyond all use."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api.bodies import MAX_CONTAINERS, MAX_DEPTH, as_json
from synapse.domain.errors import MalformedBody
from tests.unit.api.calls import api_of, call
from tests.unit.application.world import World

GOOD = {"model": "echo", "prompt": "x"}
ROUTES = ["/async-infer", "/v1/chat/completions", "/v1/files", "/v1/batches"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "gzip, identity", "x"])
async def test_a_compressed_body_is_refused_whatever_is_in_it(path: str, encoding: str) -> None:
    world = World()
    body = gzip.compress(b"0" * 1_000_000).decode("latin-1")

    answer = await call(api_of(world), "POST", path, body, {"content-encoding": encoding})

    assert answer.status == 415
    assert answer.error["code"] == "unsupported_content_encoding"
    assert await world.queue.depth("echo") == dict.fromkeys(await world.queue.depth("echo"), 0)


@pytest.mark.parametrize("name", ["content-encoding", "Content-Encoding"])
async def test_a_body_as_it_is_passes_also_if_it_says_so(name: str) -> None:
    answer = await call(api_of(World()), "POST", "/async-infer", GOOD, {name: "identity"})

    assert answer.status == 202


def nested(depth: int, inner: str = "1") -> str:
    """An object with that many levels in all."""
    return '{"a":' + "[" * (depth - 1) + inner + "]" * (depth - 1) + "}"


@pytest.mark.parametrize(
    "text",
    [
        nested(MAX_DEPTH + 1),
        nested(100_000),
        '{"a":' * 100_000,
        '{"a":' + "[" * 5_000_000,
        '{"a":[' + "[]," * MAX_CONTAINERS + "1]}",
        '{"a":"\\\\","b":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
    ],
    ids=["one too deep", "deep", "unclosed", "5 MB of brackets", "too many", "after an escape"],
)
async def test_what_nests_too_deeply_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    with pytest.raises(MalformedBody):
        as_json({"body": text})
    assert time.process_time() - started < 1.0

    answer = await call(api_of(World()), "POST", "/async-infer", text)

    assert (answer.status, answer.error["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    "text",
    [
        nested(MAX_DEPTH),
        '{"a":"' + "[" * 1000 + '"}',
        '{"a":"\\"' + "[{" * 1000 + '"}',
        '{"a":"\\\\\\"' + "[" * 1000 + '","b":{}}',
        '{"a":[' + "[1,2]," * 2048 + "[]]}",
    ],
    ids=["as deep as may be", "in a text", "after a quote", "after both", "token ids"],
)
def test_what_only_looks_so_passes(text: str) -> None:
    assert as_json({"body": text})["body"] == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(value=st.dictionaries(st.text(), JSON), wrap=st.integers(0, 2 * MAX_DEPTH))
def test_it_is_the_depth_of_the_value_that_counts(value: dict[str, Any], wrap: int) -> None:
    for _ in range(wrap):
        value = {'"[{': value}
    text = json.dumps(value)

    if depth_of(value) > MAX_DEPTH:
        with pytest.raises(MalformedBody):
            as_json({"body": text})
    else:
        assert as_json({"body": text})["body"] == text


def depth_of(value: Any) -> int:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth_of, inner), default=0)
    return 0


@pytest.mark.parametrize("body", ["", None])
@pytest.mark.parametrize("name", ["content-type", "Content-Type"])
async def test_an_empty_body_is_no_form_whatever_is_said_of_it(name: str, body: str | None) -> None:
    for kind in ("multipart/form-data", "application/x-www-form-urlencoded", "x"):
        answer = await call(api_of(World()), "POST", "/async-infer", body, {name: kind})

        assert answer.status == 400
        assert answer.error["code"] == "missing_required_parameter"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", r'{"model": "echo", "prompt": "\uD800"}', "prompt"),
        ("/v1/completions", r'{"model": "echo", "prompt": ["a", "\udfff\ud800"]}', "prompt.1"),
        ("/v1/chat/completions", r'{"messages": [{"content": "\udc00 a"}]}', "messages.0.content"),
        ("/async-infer", r'{"metadata": {"a\ud800": "b"}}', "metadata"),
        ("/async-infer", r'{"\ud800": "b"}', None),
    ],
)
async def test_half_a_surrogate_pair_is_refused_wherever_it_is(
    path: str, body: str, param: str | None
) -> None:
    answer = await call(api_of(World()), "POST", path, body)

    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == ("invalid_value", param)


async def test_a_whole_pair_is_a_text_like_any_other() -> None:
    body = r'{"model": "echo", "prompt": "\ud83d\ude00 \\ud800"}'

    answer = await call(api_of(World()), "POST", "/async-infer", body)

    assert answer.status == 202
