"""The chunks of a streamed answer, as the lines that go over the wire.

Most of a chunk is the same in all of them and is serialised once; what a token costs here is one
small `json.dumps` and a concatenation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from synapse.api.errors import ToldError
from synapse.api.openai.calls import CallPart, CallReader, Content, Part
from synapse.api.openai.counting import UsageCount
from synapse.api.openai.rendering import (
    Heading,
    call_id,
    chat_logprobs,
    echo,
    finish_reason,
    text_logprobs,
    usage_body,
)
from synapse.api.openai.requests import Ask, told_tier
from synapse.api.receipts import receipt_body
from synapse.domain.inference import Delta, TokenLogprob
from synapse.domain.receipt import Receipt, combined

DONE = b"data: [DONE]\n\n"


LINE_ENDS = str.maketrans({end: f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"})
"""What some clients (those over httpx) take for the end of a line, though events know it not."""


def dumps(value: object) -> str:
    """Compact JSON of one line, with characters as they are."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else text.translate(LINE_ENDS)


def event(value: object) -> bytes:
    """A server-sent event with a JSON body."""
    return f"data: {dumps(value)}\n\n".encode()


class ChunkWriter:
    """Writes one answer's chunks; feed it every delta with the index of its choice.

    `keeps_tier` is asked when the first delta is there: then it is known who writes. `receipts`
    are asked for at the end.
    """

    def __init__(
        self,
        ask: Ask,
        heading: Heading,
        keeps_tier: Callable[[], bool] = lambda: False,
        receipts: Callable[[], Sequence[Receipt]] = tuple,
    ) -> None:
        self._ask = ask
        self._told = ask.told
        self._heading = heading
        self._keeps_tier = keeps_tier
        self._receipts = receipts
        self._tail = ',"usage":null}\n\n' if ask.told.usage_at_end else "}\n\n"
        self._count = UsageCount(ask.samples)
        make = _ChatChoice if ask.told.is_chat else _TextChoice
        count = len(ask.inputs) * ask.samples
        self._choices = [make(ask, heading.id, index) for index in range(count)]

    @cached_property
    def _head(self) -> str:
        ask, heading = self._ask, self._heading
        fields: dict[str, Any] = {
            "id": heading.id,
            "object": "chat.completion.chunk" if ask.told.is_chat else "text_completion",
            "created": heading.created,
            "model": heading.model,
            "system_fingerprint": heading.fingerprint,
        }
        tier = told_tier(ask, self._keeps_tier())
        if tier is not None:
            fields["service_tier"] = tier
        return f"data: {dumps(fields)[:-1]},"

    def begin(self) -> bytes:
        """Nothing: the first chunk comes with the first delta."""
        return b""

    def write(self, index: int, delta: Delta) -> bytes:
        """The chunks that a delta makes: often one, sometimes none."""
        self._count.add(index, delta)
        choices = self._choices[index].take(delta)
        tail = self._tail
        if self._told.usage_in_each:
            tail = f',"usage":{dumps(usage_body(self._count.usage))}}}\n\n'
        return "".join(f'{self._head}"choices":[{each}]{tail}' for each in choices).encode()

    def end(self) -> bytes:
        """What comes after the last delta."""
        if not self._told.usage_at_end:
            return DONE
        usage, receipts = dumps(usage_body(self._count.usage)), self._receipts()
        told = ""
        if receipts:
            # Beside the usage, not in it: clients add up what they find there.
            told = f',"receipt":{receipt_body(combined(receipts)).model_dump_json()}'
        return f'{self._head}"choices":[],"usage":{usage}{told}}}\n\n'.encode() + DONE

    def failed(self, error: ToldError) -> bytes:
        """What is sent instead of the rest, without an end: nobody takes a part for the whole."""
        return event(error)


class _TextChoice:
    """One choice of a completion."""

    def __init__(self, ask: Ask, answer_id: str, index: int) -> None:
        self._index = index
        self._top = ask.told.top_logprobs
        self._unsent = echo(ask, index)
        self._offset = 0

    def take(self, delta: Delta) -> list[str]:
        """The choice objects that a delta makes."""
        text, reason = self._unsent + delta.text, delta.finish_reason
        self._unsent = ""
        if not text and reason is None and not delta.logprobs:
            return []
        logprobs = "null"
        if self._top is not None:
            logprobs = dumps(text_logprobs(delta.logprobs, self._top, self._offset))
            self._offset += sum(len(each.token) for each in delta.logprobs)
        return [
            f'{{"index":{self._index},"text":{dumps(text)},"logprobs":{logprobs},'
            f'"finish_reason":{dumps(reason)}}}'
        ]


class _ChatChoice:
    """One choice of a chat answer."""

    def __init__(self, ask: Ask, answer_id: str, index: int) -> None:
        self._answer_id = answer_id
        self._index = index
        self._top = ask.told.top_logprobs
        self._reader: CallReader | None = ask.told.calling.reader() if ask.told.calling else None
        self._has_begun = False
        self._has_calls = False
        self._logprobs: list[TokenLogprob] = []

    def take(self, delta: Delta) -> list[str]:
        """The choice objects that a delta makes."""
        self._logprobs += delta.logprobs
        is_last = delta.finish_reason is not None
        objects = [] if self._has_begun else [self._object('{"role":"assistant","content":""}')]
        self._has_begun = True
        for part in self._parts(delta.text, is_last):
            objects.append(self._object(self._delta(part), self._taken_logprobs()))
        if self._logprobs and not is_last and self._reader is None:
            # A token that is half a character: it has a probability before it has a text.
            objects.append(self._object('{"content":""}', self._taken_logprobs()))
        if delta.finish_reason is not None:
            reason = dumps(finish_reason(delta.finish_reason, self._has_calls))
            objects.append(self._object("{}", self._taken_logprobs(), reason))
        return objects

    def _parts(self, text: str, is_last: bool) -> list[Part]:
        if self._reader is None:
            return [Content(text)] if text else []
        parts = self._reader.feed(text)
        return [*parts, *self._reader.finish()] if is_last else parts

    def _delta(self, part: Part) -> str:
        if isinstance(part, Content):
            return f'{{"content":{dumps(part.text)}}}'
        self._has_calls = True
        return f'{{"tool_calls":[{self._call(part)}]}}'

    def _call(self, part: CallPart) -> str:
        function: dict[str, str] = {"arguments": part.arguments}
        if part.name is None:
            return dumps({"index": part.index, "function": function})
        name = call_id(self._answer_id, self._index, part.index)
        function = {"name": part.name, **function}
        return dumps({"index": part.index, "id": name, "type": "function", "function": function})

    def _taken_logprobs(self) -> str:
        if self._top is None or not self._logprobs:
            return "null"
        taken, self._logprobs = self._logprobs, []
        return dumps(chat_logprobs(taken, self._top))

    def _object(self, delta: str, logprobs: str = "null", reason: str = "null") -> str:
        return (
            f'{{"index":{self._index},"delta":{delta},"logprobs":{logprobs},'
            f'"finish_reason":{reason}}}'
        )
