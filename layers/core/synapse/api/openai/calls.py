"""Calls of tools in what a model writes, read while it is being written. Pure.

A reader is fed the text in whatever pieces it comes; what it gives back does not depend on where
the pieces end, so a stream tells the same as the whole does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Protocol

from synapse.domain.json_text import lone_surrogate_at

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
# What can be told before the call is complete: its name, and that its arguments are an object.
HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*"([a-zA-Z0-9_.-]+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)


@dataclass(frozen=True, slots=True)
class Content:
    """Text for the reader of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallPart:
    """A part of the call number `index`: its name comes first, then its arguments in pieces."""

    index: int
    name: str | None = None
    arguments: str = ""


Part = Content | CallPart


class CallReader(Protocol):
    """Tells content and calls apart."""

    def feed(self, text: str) -> list[Part]:
        """What is known now that `text` has come."""
        ...

    def finish(self) -> list[Part]:
        """What is left now that nothing more comes."""
        ...


class HermesReader:
    """Calls as Hermes and Qwen models write them: `<tool_call>{"name": …, "arguments": {…}}`."""

    def __init__(self) -> None:
        self._state = self._outside
        self._text = ""
        self._gap = ""
        self._calls = 0
        self._object = _ObjectEnd()
        self._parts: list[Part] = []

    def feed(self, text: str) -> list[Part]:
        """What is known now that `text` has come."""
        self._text += text
        while self._state():
            pass
        return self._taken()

    def finish(self) -> list[Part]:
        """What is left now that nothing more comes."""
        if self._state == self._outside and not (self._calls and self._text.isspace()):
            self._content(self._text)
        elif self._state == self._inside and not self._whole_call(self._text):
            self._content(self._gap + OPEN + self._text)
        self._text = ""
        return self._taken()

    def _outside(self) -> bool:
        at = self._text.find(OPEN)
        # Space before a call belongs to the call, and that one comes is not known before.
        end = at if at >= 0 else len(self._text) - _begun(self._text, OPEN)
        content = self._text[:end].rstrip()
        self._content(content)
        if at < 0:
            self._text = self._text[len(content) :]
            return False
        self._gap = self._text[len(content) : at]
        self._text = self._text[at + len(OPEN) :]
        self._state = self._inside
        return True

    def _inside(self) -> bool:
        head = HEAD.match(self._text)
        if head:
            self._parts.append(CallPart(self._calls, head[1]))
            self._text = self._text[head.end() :]
            self._object = _ObjectEnd()
            self._state = self._arguments
            return True
        end = self._text.find(CLOSE)
        if end < 0:
            return False
        body, self._text = self._text[:end], self._text[end + len(CLOSE) :]
        if not self._whole_call(body):
            self._content(self._gap + OPEN + body + CLOSE)
        self._state = self._outside
        return True

    def _arguments(self) -> bool:
        piece, self._text = self._object.split(self._text)
        if piece:
            self._parts.append(CallPart(self._calls, arguments=piece))
        if not self._object.reached:
            return False
        self._calls += 1
        self._state = self._after
        return True

    def _after(self) -> bool:
        """Drop what stands between the arguments and the end of the call."""
        ends = [at for at in (self._text.find(CLOSE), self._text.find(OPEN)) if at >= 0]
        if not ends:
            begun = max(_begun(self._text, CLOSE), _begun(self._text, OPEN))
            self._text = self._text[len(self._text) - begun :]
            return False
        self._text = self._text[min(ends) :].removeprefix(CLOSE)
        self._state = self._outside
        return True

    def _whole_call(self, body: str) -> bool:
        call = _call(body)
        if call is None:
            return False
        name, arguments = call
        self._parts += [CallPart(self._calls, name), CallPart(self._calls, arguments=arguments)]
        self._calls += 1
        return True

    def _content(self, text: str) -> None:
        if text:
            self._parts.append(Content(text))

    def _taken(self) -> list[Part]:
        taken, self._parts = self._parts, []
        return taken


class OneCallReader:
    """The one call that the model was made to write, as JSON and nothing else."""

    def __init__(self) -> None:
        self._text = ""
        self._object: _ObjectEnd | None = None

    def feed(self, text: str) -> list[Part]:
        """What is known now that `text` has come."""
        self._text += text
        parts: list[Part] = []
        if self._object is None:
            head = HEAD.match(self._text)
            if head is None:
                return parts
            parts.append(CallPart(0, head[1]))
            self._text = self._text[head.end() :]
            self._object = _ObjectEnd()
        piece, self._text = self._object.split(self._text)
        return [*parts, CallPart(0, arguments=piece)] if piece else parts

    def finish(self) -> list[Part]:
        """What is left now that nothing more comes."""
        if self._object is not None or not self._text:
            return []
        call = _call(self._text)
        if call is None:
            return [Content(self._text)]
        return [CallPart(0, call[0]), CallPart(0, arguments=call[1])]


class ArgumentsReader:
    """The arguments of a function that was named beforehand: all the model writes."""

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def feed(self, text: str) -> list[Part]:
        """What is known now that `text` has come."""
        if not text:
            return []
        name, self._name = self._name, None
        return [CallPart(0, name, text)]

    def finish(self) -> list[Part]:
        """What is left now that nothing more comes."""
        return [] if self._name is None else [CallPart(0, self._name)]


class _ObjectEnd:
    """Finds the end of a JSON object that comes in pieces."""

    def __init__(self) -> None:
        self.reached = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def split(self, text: str) -> tuple[str, str]:
        """What of `text` still belongs to the object, and the rest."""
        if self.reached:
            return "", text
        for at, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == "<":  # never part of JSON: the call ends before its object does
                self.reached = True
                return text[:at], text[at:]
            elif self._closes(character):
                self.reached = True
                return text[: at + 1], text[at + 1 :]
        return text, ""

    def _closes(self, character: str) -> bool:
        if character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
        self._in_string = character == '"'
        return character in "}]" and self._depth == 0


def _begun(text: str, tag: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    sizes = range(min(len(tag) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(tag[:size])), 0)


def _call(text: str) -> tuple[str, str] | None:
    """Name and arguments of a call that is complete, in whatever order."""
    try:
        call: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        return None
    if lone_surrogate_at(text, call) is not None:
        return None  # no text that could be sent: it stays as the model wrote it, escaped
    arguments = call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str):
        return call["name"], arguments
    return call["name"], json.dumps({} if arguments is None else arguments, ensure_ascii=False)
