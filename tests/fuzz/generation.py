"""What chat and completions are asked for: the deep shapes of OpenAI's API."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.fuzz.nasty import leaves, texts, values

MARK = "@@canary@@"
"""Stands for the tenant's own canary, which whoever sends the body puts in."""

MODELS = st.sampled_from(["echo"] * 8 + ["smollm2-135m-instruct", "nothing", ""])


def either(**fields: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """A dictionary with some of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


def both(first: SearchStrategy[Any], second: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    return st.tuples(first, second).map(lambda pair: {**pair[0], **pair[1]})


WORDS = st.sampled_from([MARK, f"{MARK} says 日本", "one two", "x" * 500]) | texts
UNIT = st.floats(0, 1)
METADATA = st.dictionaries(st.sampled_from(["a", "mark"]) | texts, WORDS, max_size=3)
SAMPLING = either(
    max_tokens=st.integers(1, 20),
    temperature=UNIT,
    top_p=UNIT,
    top_k=st.integers(-1, 5),
    min_p=UNIT,
    seed=st.integers(0, 2**32 - 1),
    stop=texts | st.lists(texts, max_size=3),
    presence_penalty=UNIT,
    frequency_penalty=UNIT,
    repetition_penalty=UNIT,
    ignore_eos=st.booleans(),
)
FLAT = (
    st.sampled_from([{}, {"type": "string"}, {"type": "integer"}, {"enum": [1, None]}, True])
    | st.builds(lambda text: {"type": "string", "pattern": text}, texts)
    | st.just({"$ref": "#"})
)
SCHEMA: SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        FLAT,
        FLAT,
        st.builds(lambda each: {"type": "array", "items": each}, SCHEMA),
        st.builds(lambda each: {"anyOf": each}, st.lists(SCHEMA, max_size=2)),
        st.builds(
            lambda each: {"type": "object", "properties": each, "required": sorted(each)},
            st.dictionaries(texts, SCHEMA, max_size=2),
        ),
        st.builds(lambda each: {"$defs": {"a": each}, "$ref": "#/$defs/a"}, SCHEMA),
    )
)
GENERATION = both(
    either(
        stream=st.booleans(),
        stream_options=either(include_usage=st.booleans(), continuous_usage_stats=st.booleans()),
        logit_bias=st.dictionaries(st.integers(-1, 60_000).map(str) | texts, st.floats(-101, 101)),
        n=st.integers(1, 4),
        user=WORDS,
        prompt_cache_key=texts,
        metadata=METADATA,
        service_tier=st.sampled_from(["auto", "default", "flex", "priority", "x"]),
        min_tokens=st.integers(0, 5),
        structured_outputs=either(
            json=SCHEMA, regex=texts, choice=st.lists(texts, max_size=3), grammar=texts
        ),
        guided_json=SCHEMA | SCHEMA.map(json.dumps),
        guided_regex=st.sampled_from(["(a+)+$", "[", "a{99999}", "\\"]) | texts,
        store=st.sampled_from([False, True, None]),
    ),
    SAMPLING,
)
TOOLS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["function", "function", "web_search"]),
            "function": st.fixed_dictionaries(
                {"name": st.sampled_from(["look_up", "a", ""]) | texts},
                optional={"description": WORDS, "parameters": SCHEMA, "strict": st.booleans()},
            ),
        }
    ),
    max_size=3,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
    optional={
        "content": WORDS
        | st.none()
        | st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["text", "image_url", "input_audio", "refusal"])},
                optional={"text": WORDS, "image_url": values, "file": leaves},
            ),
            max_size=3,
        ),
        "name": texts,
        "tool_call_id": texts,
        "refusal": texts,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {
                    "id": texts,
                    "type": st.just("function"),
                    "function": st.fixed_dictionaries({"name": texts, "arguments": texts}),
                }
            ),
            max_size=2,
        ),
    },
)
CHAT_BODY = both(
    st.fixed_dictionaries({"model": MODELS, "messages": st.lists(TURN, max_size=4)}),
    both(
        GENERATION,
        either(
            tools=TOOLS,
            tool_choice=st.sampled_from(["none", "auto", "required"])
            | st.builds(lambda name: {"type": "function", "function": {"name": name}}, texts),
            response_format=st.fixed_dictionaries(
                {"type": st.sampled_from(["text", "json_object", "json_schema"])},
                optional={
                    "json_schema": st.fixed_dictionaries({"name": texts, "schema": SCHEMA}),
                },
            ),
            logprobs=st.booleans(),
            top_logprobs=st.integers(0, 21),
            max_completion_tokens=st.integers(0, 20),
            parallel_tool_calls=st.booleans(),
            reasoning_effort=st.sampled_from(["none", "high", "x", None]),
            chat_template_kwargs=values
            | either(enable_thinking=st.booleans(), messages=values, documents=values),
        ),
    ),
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "text", "refusal", "input_image"])},
    optional={"text": WORDS, "refusal": texts, "annotations": values, "image_url": values},
)
ITEM = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                *("message", "message", "function_call", "function_call_output", "reasoning"),
                *("item_reference", "web_search_call", "", None),
            ]
        )
    },
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "developer", "tool"]),
        "content": WORDS | st.lists(PART, max_size=3),
        "id": texts,
        "call_id": texts,
        "name": texts,
        "arguments": texts,
        "output": WORDS | st.lists(PART, max_size=2),
        "status": st.sampled_from(["completed", "incomplete", "x", None]),
        "summary": values,
    },
)
FUNCTION = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["function", "function", "web_search", "custom"]),
        "name": st.sampled_from(["look_up", "a", ""]) | texts,
    },
    optional={"description": WORDS, "parameters": SCHEMA, "strict": st.booleans()},
)
NAMED = st.builds(lambda name: {"type": "function", "name": name}, texts | st.just("a"))
RESPONSE_BODY = both(
    st.fixed_dictionaries({"model": MODELS, "input": WORDS | st.lists(ITEM, max_size=4)}),
    both(
        GENERATION.map(
            lambda body: {
                name: value
                for name, value in body.items()
                if name not in ("n", "max_tokens", "stream_options")
            }
        ),
        either(
            instructions=WORDS,
            max_output_tokens=st.integers(0, 20),
            tools=st.lists(FUNCTION, max_size=3),
            tool_choice=st.sampled_from(["none", "auto", "required"])
            | NAMED
            | st.builds(
                lambda mode, tools: {"type": "allowed_tools", "mode": mode, "tools": tools},
                st.sampled_from(["auto", "required", "x"]),
                st.lists(NAMED, max_size=2),
            ),
            parallel_tool_calls=st.booleans(),
            text=either(
                format=st.fixed_dictionaries(
                    {"type": st.sampled_from(["text", "json_object", "json_schema"])},
                    optional={"name": texts, "schema": SCHEMA, "strict": st.booleans()},
                ),
                verbosity=st.sampled_from(["low", "medium", None]),
            ),
            include=st.lists(
                st.sampled_from(
                    ["message.output_text.logprobs", "reasoning.encrypted_content", "x"]
                ),
                max_size=2,
            ),
            top_logprobs=st.integers(0, 21),
            reasoning=either(effort=st.sampled_from(["none", "high", None]), summary=texts),
            stream_options=either(include_obfuscation=st.booleans()),
            previous_response_id=texts | st.none(),
            conversation=values,
            background=st.booleans(),
            truncation=st.sampled_from(["auto", "disabled", None]),
        ),
    ),
)
TOKENS = st.lists(st.integers(-1, 60_000) | st.integers(), max_size=5)
PROMPTS = WORDS | st.lists(WORDS, max_size=4) | TOKENS | st.lists(TOKENS, max_size=3)
PLAIN_TEXT = st.fixed_dictionaries(
    {"model": st.just("echo"), "prompt": st.just(f"{MARK} is completed")},
    optional={"stream": st.booleans(), "user": st.just(MARK), "max_tokens": st.integers(1, 9)},
)
COMPLETION = PLAIN_TEXT | both(
    st.fixed_dictionaries({"model": MODELS, "prompt": PROMPTS}),
    GENERATION
    | either(echo=st.booleans(), stream=st.booleans(), n=st.integers(1, 3))
    | st.just({}),
)
