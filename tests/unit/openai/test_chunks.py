"""A stream tells the same as the whole, in OpenAI's shapes."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from synapse.api.openai.bodies import ChatCompletion, TextCompletion
from synapse.api.openai.chunks import ChunkWriter
from synapse.api.openai.rendering import Heading, answer_body
from synapse.api.openai.requests import Ask
from synapse.domain.inference import Choice, Completion, Delta, TokenLogprob
from synapse.domain.job import Usage
from tests.unit.openai.asking import TOOL, chat, completion

HEADING = Heading("a-1", 1_700_000_000, "m", "fp_1")
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def chunks(ask: Ask, deltas: list[tuple[int, Delta]]) -> list[dict[str, Any]]:
    """The chunks of a stream, read as a client reads them."""
    writer = ChunkWriter(ask, HEADING)
    wire = b"".join(writer.write(index, delta) for index, delta in deltas) + writer.end()
    *events, end = wire.decode().removesuffix("\n\n").split("\n\n")
    assert end == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def as_deltas(choice: Choice, size: int, usage: Usage) -> list[Delta]:
    """A choice in pieces of `size` characters, each with the tokens that begin in it."""
    texts = [choice.text[at : at + size] for at in range(0, len(choice.text), size)] or [""]
    tokens = list(choice.logprobs)
    deltas = []
    for at, text in enumerate(texts):
        is_last = at == len(texts) - 1
        taken, tokens = (tokens, []) if is_last else (tokens[:1], tokens[1:])
        deltas.append(Delta(text, usage.prompt_tokens, 0, logprobs=tuple(taken)))
    last = Delta("", usage.prompt_tokens, usage.completion_tokens, choice.finish_reason, 1)
    return [*deltas, last]


def put_together(ask: Ask, told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The choices that a client has once the stream is over."""
    choices: dict[int, dict[str, Any]] = {}
    for choice in (choice for chunk in told for choice in chunk["choices"]):
        delta = choice["delta"] if ask.told.is_chat else choice
        kept = choices.setdefault(
            choice["index"], {"text": "", "calls": [], "logprobs": [], "reason": None}
        )
        kept["text"] += delta.get("content" if ask.told.is_chat else "text") or ""
        if choice["logprobs"]:
            own = choice["logprobs"]
            kept["logprobs"] += own["content"] if ask.told.is_chat else own["tokens"]
        kept["reason"] = choice["finish_reason"] or kept["reason"]
        for call in delta.get("tool_calls", []):
            if "id" in call:
                kept["calls"].append([call["id"], call["function"]["name"], ""])
            kept["calls"][call["index"]][2] += call["function"]["arguments"]
    return [choices[index] for index in sorted(choices)]


def as_told(ask: Ask, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices of a whole answer, in the same terms."""
    found = []
    for choice in body["choices"]:
        message = choice.get("message") or {"content": choice.get("text"), "tool_calls": []}
        own = choice["logprobs"]
        calls = message.get("tool_calls") or []
        found.append(
            {
                "text": message["content"] or "",
                "calls": [
                    [c["id"], c["function"]["name"], c["function"]["arguments"]] for c in calls
                ],
                "logprobs": (own["content"] if ask.told.is_chat else own["tokens"]) if own else [],
                "reason": choice["finish_reason"],
            }
        )
    return found


TEXT = st.lists(st.sampled_from([CALL, "Hi ", "ü", "\n", "<tool_call>", '"'])).map("".join)
LOGPROBS = st.lists(st.builds(TokenLogprob, st.sampled_from(["a", "ü", "�", ""]), st.just(-0.5)))
CHOICE = st.builds(Choice, TEXT, st.sampled_from(["stop", "length"]), LOGPROBS.map(tuple))
ASKS = {
    "chat": chat(n=2, stream=True, logprobs=True, top_logprobs=1),
    "tools": chat(n=2, stream=True, tools=[TOOL], logprobs=True),
    "text": completion(n=2, stream=True, logprobs=1),
    "echo": completion(n=2, stream=True, echo=True),
}


@given(ask=st.sampled_from(sorted(ASKS)), both=st.tuples(CHOICE, CHOICE), size=st.integers(1, 9))
def test_a_stream_says_what_the_whole_says(ask: str, both: tuple[Choice, ...], size: int) -> None:
    asked, usage = ASKS[ask], Usage(3, 4)
    first, second = both
    whole = Completion(
        first.text, first.finish_reason, Usage(3, 8), first.logprobs, others=(second,)
    )
    deltas = [
        [(at, delta) for delta in as_deltas(each, size, usage)] for at, each in enumerate(both)
    ]

    body = answer_body(asked, HEADING, [whole])
    told = chunks(asked, [each for pair in itertools.zip_longest(*deltas) for each in pair if each])

    (ChatCompletion if asked.told.is_chat else TextCompletion).model_validate(body)
    assert put_together(asked, told) == as_told(asked, body)
    assert {(c["id"], c["created"], c["model"]) for c in told} == {("a-1", 1_700_000_000, "m")}


def test_a_chat_stream_begins_with_the_role_and_ends_with_the_reason() -> None:
    told = chunks(chat(stream=True), [(0, Delta("Hi", 3, 1)), (0, Delta("", 3, 0, "length"))])

    assert [chunk["object"] for chunk in told] == ["chat.completion.chunk"] * 3
    assert [chunk["choices"][0] for chunk in told] == [
        {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        for delta, reason in [
            ({"role": "assistant", "content": ""}, None),
            ({"content": "Hi"}, None),
            ({}, "length"),
        ]
    ]
    assert not any("usage" in chunk for chunk in told)


def test_the_usage_comes_last_and_is_null_until_then() -> None:
    ask = chat(stream=True, stream_options={"include_usage": True}, n=2)
    deltas = [(at, Delta("Hi", 3, 2, "stop", 1)) for at in range(2)]

    *before, last = chunks(ask, deltas)

    assert [chunk["usage"] for chunk in before] == [None] * len(before)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


def test_the_usage_so_far_is_in_every_chunk_if_wanted() -> None:
    ask = completion(stream=True, stream_options={"continuous_usage_stats": True})

    told = chunks(ask, [(0, Delta("a", 3, 1)), (0, Delta("b", 3, 1, "stop"))])

    assert [chunk["usage"]["total_tokens"] for chunk in told] == [4, 5]


def test_a_call_is_told_with_its_id_and_name_first() -> None:
    ask = chat(stream=True, tools=[TOOL])

    told = chunks(ask, [(0, Delta(CALL[:40])), (0, Delta(CALL[40:])), (0, Delta("", 3, 9, "stop"))])

    first, second, *_, last = [c["choices"][0]["delta"].get("tool_calls") for c in told][1:]
    named = {"name": "f", "arguments": ""}
    assert first == [{"index": 0, "id": first[0]["id"], "type": "function", "function": named}]
    assert first[0]["id"].startswith("call_")
    assert set(second[0]) == {"index", "function"}
    assert last is None
    assert told[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert "tool_call>" not in json.dumps(told)


def test_the_tier_is_told_where_it_was_asked_for() -> None:
    told = chunks(chat(stream=True, service_tier="flex"), [(0, Delta("a", 1, 1, "stop"))])

    assert {chunk["service_tier"] for chunk in told} == {"flex"}


def test_what_is_told_of_the_tier_waits_for_who_answers() -> None:
    known: list[str] = []
    ask = chat(stream=True, service_tier="priority")
    writer = ChunkWriter(ask, HEADING, lambda: bool(known))

    known.append("the pool that took it")
    told = json.loads(writer.write(0, Delta("a", 1, 1, "stop")).split(b"\n\n")[0][6:])

    assert told["service_tier"] == "priority"


def test_offsets_of_tokens_count_from_the_start_of_the_completion() -> None:
    ask = completion(stream=True, logprobs=0)
    parts = [(TokenLogprob("ab", -1.0),), (TokenLogprob("c", -2.0, (("x", -0.1),)),)]
    deltas = [(0, Delta(part[0].token, 3, 1, logprobs=part)) for part in parts]

    first, second = (c["choices"][0]["logprobs"] for c in chunks(ask, deltas))

    assert (first["text_offset"], second["text_offset"]) == ([0], [2])
    assert (second["tokens"], second["token_logprobs"]) == (["c"], [-2.0])
    assert second["top_logprobs"] == [{"c": -2.0}]


def test_an_event_is_one_line_to_readers_who_end_lines_at_more_than_newlines() -> None:
    text = "a\x85b\u2028c\u2029d\x0b\x0c\x1c\x1d\x1eé"
    writer = ChunkWriter(chat(stream=True), HEADING)

    wire = writer.write(0, Delta(text, 3, 1)).decode()

    lines = [line for line in wire.splitlines() if line]
    told = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in told) == text
    assert "é" in wire
