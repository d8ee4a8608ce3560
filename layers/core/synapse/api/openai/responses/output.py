"""What a model writes as the items of a response, while it is being written. Pure.

A whole answer and a stream are made by the same: it is fed what the model writes, in whatever
pieces, keeps the items as they are by then, and gives back the events that tell of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from synapse.api.openai.calls import CallPart, CallReader, Content, Part
from synapse.api.openai.rendering import Body, call_id, item_id, token_logprobs
from synapse.api.openai.requests import Told
from synapse.domain.inference import TokenLogprob

Event = dict[str, Any]
"""An event but for its number."""


class Output:
    """The items of one answer."""

    def __init__(self, told: Told, answer_id: str) -> None:
        self._answer_id = answer_id
        self._top = told.top_logprobs
        self._reader: CallReader | None = told.calling.reader() if told.calling else None
        self._items: list[_Text | _Call] = []
        self._calls = 0
        self._logprobs: list[TokenLogprob] = []
        self.reason: str | None = None

    @property
    def items(self) -> list[Body]:
        """What there is so far; what is not at its end is incomplete."""
        return [item.body for item in self._items]

    @property
    def is_cut(self) -> bool:
        """Whether it ended where no more tokens were allowed, not where the model would have."""
        return self.reason == "length"

    def take(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> list[Event]:
        """What is new now that `text` has come."""
        self._logprobs += logprobs
        if self._reader is None:
            return self._told([Content(text)] if text else [])
        return self._told(self._reader.feed(text))

    def end(self, reason: str) -> list[Event]:
        """What is left to tell now that nothing more comes, for that reason."""
        self.reason = reason
        events = self._told(self._reader.finish()) if self._reader else []
        if not self._items:
            events += self._begun(_Text(self._new_id("msg"), 0))  # there is always an answer
        last = self._items[-1]
        if isinstance(last, _Text) and (left := self._taken_logprobs()):
            events.append(last.add("", left))
        return [*events, *last.closed("incomplete" if self.is_cut else "completed")]

    def _told(self, parts: Sequence[Part]) -> list[Event]:
        events: list[Event] = []
        for part in parts:
            events += self._content(part) if isinstance(part, Content) else self._call(part)
        return events

    def _content(self, part: Content) -> list[Event]:
        events: list[Event] = []
        last = self._items[-1] if self._items else None
        if not isinstance(last, _Text):
            last = _Text(self._new_id("msg"), len(self._items))
            events = self._begun(last)
        return [*events, last.add(part.text, self._taken_logprobs())]

    def _call(self, part: CallPart) -> list[Event]:
        events: list[Event] = []
        last = self._items[-1] if self._items else None
        if part.name is not None:
            called = call_id(self._answer_id, 0, self._calls)
            last = _Call(self._new_id("fc"), len(self._items), called, part.name)
            events = self._begun(last)
            self._calls += 1
        assert isinstance(last, _Call)
        return [*events, last.add(part.arguments)] if part.arguments else events

    def _begun(self, item: _Text | _Call) -> list[Event]:
        closed = self._items[-1].closed("completed") if self._items else []
        self._items.append(item)
        return [*closed, *item.opened()]

    def _new_id(self, prefix: str) -> str:
        return item_id(prefix, self._answer_id, len(self._items))

    def _taken_logprobs(self) -> list[Body]:
        taken, self._logprobs = self._logprobs, []
        return [] if self._top is None else list(map(_whole, token_logprobs(taken, self._top)))


class _Text:
    """A message with one text."""

    def __init__(self, id_: str, index: int) -> None:
        self._place = {"item_id": id_, "output_index": index}
        self._text: list[str] = []
        self._logprobs: list[Body] = []
        self._status = "incomplete"

    @property
    def body(self) -> Body:
        return self._body(self._status, [self._part()])

    def opened(self) -> list[Event]:
        at = self._place
        empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [
            _item_event("response.output_item.added", at, self._body("in_progress", [])),
            {"type": "response.content_part.added", **at, "content_index": 0, "part": empty},
        ]

    def add(self, text: str, logprobs: list[Body]) -> Event:
        self._text.append(text)
        self._logprobs += logprobs
        return self._event("response.output_text.delta", delta=text, logprobs=logprobs)

    def closed(self, status: str) -> list[Event]:
        self._status = status
        part = self._part()
        return [
            self._event("response.output_text.done", text=part["text"], logprobs=self._logprobs),
            self._event("response.content_part.done", part=part),
            _item_event("response.output_item.done", self._place, self.body),
        ]

    def _event(self, type_: str, **fields: Any) -> Event:
        return {"type": type_, **self._place, "content_index": 0, **fields}

    def _part(self) -> Body:
        text, logprobs = "".join(self._text), self._logprobs
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _body(self, status: str, content: list[Body]) -> Body:
        return {
            "type": "message",
            "id": self._place["item_id"],
            "status": status,
            "role": "assistant",
            "content": content,
        }


class _Call:
    """A call of a function."""

    def __init__(self, id_: str, index: int, call: str, name: str) -> None:
        self._place = {"item_id": id_, "output_index": index}
        self._call = {"call_id": call, "name": name}
        self._arguments: list[str] = []
        self._status = "incomplete"

    @property
    def body(self) -> Body:
        return self._body(self._status)

    def opened(self) -> list[Event]:
        return [_item_event("response.output_item.added", self._place, self._body("in_progress"))]

    def add(self, arguments: str) -> Event:
        self._arguments.append(arguments)
        kind = "response.function_call_arguments.delta"
        return {"type": kind, **self._place, "delta": arguments}

    def closed(self, status: str) -> list[Event]:
        self._status = status
        body = self.body
        whole = {"name": body["name"], "arguments": body["arguments"]}
        return [
            {"type": "response.function_call_arguments.done", **self._place, **whole},
            _item_event("response.output_item.done", self._place, body),
        ]

    def _body(self, status: str) -> Body:
        return {
            "type": "function_call",
            "id": self._place["item_id"],
            "status": status,
            **self._call,
            "arguments": "".join(self._arguments),
        }


def _item_event(type_: str, place: Body, item: Body) -> Event:
    return {"type": type_, "output_index": place["output_index"], "item": item}


def _whole(token: Body) -> Body:
    """A token as the items of responses have it: of half a character no bytes are told."""
    top = [{**each, "bytes": each["bytes"] or []} for each in token["top_logprobs"]]
    return {**token, "bytes": token["bytes"] or [], "top_logprobs": top}
