"""What goes into a record comes out of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synapse.application.payloads import decode_input, decode_result, encode_input, encode_result
from synapse.domain.inference import (
    ChatMessage,
    Choice,
    Completion,
    Embeddings,
    ModelInput,
    TokenLogprob,
    ToolCall,
)
from synapse.domain.job import Usage

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
