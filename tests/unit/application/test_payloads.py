"""What goes into a record comes out of it."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synapse.application.payloads import (
    INLINE_LIMIT_BYTES,
    decode_input,
    decode_result,
    encode_input,
    encode_result,
    fetch,
    stow,
    stowed,
)
from synapse.domain.inference import (
    ChatMessage,
    Choice,
    Completion,
    Embeddings,
    ModelInput,
    TokenLogprob,
    ToolCall,
)
from synapse.domain.job import Payload, Usage
from tests.factories import a_job
from tests.fakes import MemoryBlobStore

TEXT = st.text(max_size=20)
COUNT = st.integers(0, 2**31)
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=32)
TOKENS = st.lists(COUNT, min_size=1, max_size=3).map(tuple)
MESSAGE = st.builds(
    ChatMessage,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=TEXT,
    name=st.none() | st.text(min_size=1),
    tool_calls=st.lists(st.builds(ToolCall, TEXT, TEXT, TEXT), max_size=2).map(tuple),
    tool_call_id=st.none() | st.text(min_size=1),
)
LOGPROB = st.builds(
    TokenLogprob, TEXT, NUMBER, st.lists(st.tuples(TEXT, NUMBER), max_size=2).map(tuple)
)
LOGPROBS = st.lists(LOGPROB, max_size=2).map(tuple)
INPUT = st.builds(
    ModelInput,
    prompt=st.none() | TEXT | TOKENS,
    messages=st.lists(MESSAGE, max_size=3).map(tuple),
    parameters=st.dictionaries(st.text(min_size=1), NUMBER | TEXT, max_size=3),
    tools=st.lists(st.fixed_dictionaries({"name": TEXT}), max_size=2).map(tuple),
    inputs=st.lists(TEXT | TOKENS, max_size=3).map(tuple),
    samples=st.integers(1, 8),
    variables=st.dictionaries(st.text(min_size=1), st.booleans() | TEXT, max_size=3),
    effort=st.sampled_from([None, "none", "high"]),
)
COMPLETION = st.builds(
    Completion,
    text=TEXT,
    finish_reason=st.sampled_from(["stop", "length"]),
    usage=st.builds(Usage, COUNT, COUNT, st.none() | COUNT),
    logprobs=LOGPROBS,
    others=st.lists(st.builds(Choice, TEXT, st.just("stop"), LOGPROBS), max_size=2).map(tuple),
)


@example(ModelInput(""))
@given(INPUT)
def test_an_input_survives_its_record(value: ModelInput) -> None:
    assert decode_input(encode_input(value)) == value


@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        (ModelInput(""), {"prompt": ""}),
        (ModelInput("a", parameters={"seed": 1}), {"prompt": "a", "parameters": {"seed": 1}}),
        (ModelInput((1, 2), samples=2), {"prompt": [1, 2], "samples": 2}),
        (
            ModelInput(messages=(ChatMessage("user", ""),), tools=({"name": ""},)),
            {"messages": [{"role": "user"}], "tools": [{"name": ""}]},
        ),
        (ModelInput(inputs=("", (1,))), {"inputs": ["", [1]]}),
        (
            ModelInput("", variables={"enable_thinking": False}, effort="none"),
            {"prompt": "", "variables": {"enable_thinking": False}, "effort": "none"},
        ),
    ],
)
def test_what_is_at_its_default_is_not_recorded(
    value: ModelInput, recorded: dict[str, Any]
) -> None:
    assert encode_input(value) == json.dumps(recorded, separators=(",", ":"))


@given(COMPLETION)
def test_a_completion_survives_its_record(result: Completion) -> None:
    recorded = Usage(result.usage.prompt_tokens, result.usage.completion_tokens)
    assert decode_result(encode_result(result), recorded) == result


def test_embeddings_survive_their_record() -> None:
    result = Embeddings((b"\0\0\x80?", b"\0\0\0@"), Usage(7))
    assert decode_result(encode_result(result), Usage(7)) == result


def test_a_plain_result_is_just_its_text_and_why_it_ended() -> None:
    text = encode_result(Completion("", "stop", Usage(1, 0)))
    assert json.loads(text) == {"text": "", "finish_reason": "stop"}


def test_the_size_of_an_input_counts_all_that_the_model_reads() -> None:
    value = ModelInput((1, 2), (ChatMessage("user", "ä"),), inputs=("abc", (1,)))
    assert value.size_bytes == 8 + 2 + 3 + 4


def test_tools_and_earlier_calls_of_them_are_read_too() -> None:
    call = ToolCall("id", "näme", '{"a": 1}')
    tools = ({"type": "function", "function": {"name": "ä"}},)
    talk = (ChatMessage("user", "Hi"), ChatMessage("assistant", tool_calls=(call, call)))
    of_tools = len(json.dumps(tools, ensure_ascii=False).encode())

    value = ModelInput(messages=talk, tools=tools)

    assert value.extra_bytes == of_tools
    assert value.size_bytes == 2 + 2 * (5 + 8) + of_tools
    assert replace(value, samples=2).size_bytes == value.size_bytes
    assert replace(value, tools=()).size_bytes == 2 + 2 * (5 + 8)
    assert copy(value).size_bytes == value.size_bytes


def test_what_the_chat_template_is_given_may_be_read_too() -> None:
    hello = (ChatMessage("user", "Hi"),)

    value = ModelInput(messages=hello, variables={"documents": "ä" * 100})

    assert value.size_bytes == 2 + len('{"documents": ""}') + 200


@pytest.mark.parametrize("limit", [2560, INLINE_LIMIT_BYTES, 10 * INLINE_LIMIT_BYTES])
async def test_the_blob_store_says_what_a_record_keeps_up_to_what_one_holds(limit: int) -> None:
    blobs, most = MemoryBlobStore(limit), min(limit, INLINE_LIMIT_BYTES)

    for text in ("", "a" * most, "ä" * (most // 2)):
        assert await stow(blobs, "key", text) == Payload(inline=text)
    for text in ("a" * (most + 1), "ä" * (most // 2 + 1)):
        payload = await stow(blobs, "key", text)
        assert payload == Payload(blob_key="key")
        assert await fetch(blobs, payload) == text


async def test_what_a_record_keeps_already_is_read_whatever_the_limit_is() -> None:
    assert await fetch(MemoryBlobStore(1), Payload(inline="a" * 5000)) == "a" * 5000


async def test_an_input_that_is_stored_apart_is_found_by_its_job() -> None:
    blobs = MemoryBlobStore(10)
    small, large = a_job(payload=Payload(inline="a" * 10)), a_job(payload=Payload(inline="a" * 11))

    assert await stowed(blobs, small) == small
    job = await stowed(blobs, large)

    assert job.payload == Payload(blob_key=f"jobs/{large.id}/input")
    assert await fetch(blobs, job.payload) == "a" * 11
    assert await stowed(blobs, job) == job
