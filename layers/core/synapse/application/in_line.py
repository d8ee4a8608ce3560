"""Who of those in line for an engine's slots is let in, as there is room."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from synapse.domain.batching import filling
from synapse.ports import InferenceRequest

Part = Sequence[InferenceRequest]
"""Requests that go to the engine together."""


def items_of(part: Part) -> int:
    """As many as they have samples."""
    return sum(request.input.samples for request in part)


def _divided(part: Part, room: int) -> tuple[Part, Part]:
    """The requests that fit, and those that do not."""
    items = 0
    for number, request in enumerate(part):
        items += request.input.samples
        if items > room:
            return part[:number], part[number:]
    return part, ()


def take_what_fits(line: deque[Part], room: int) -> list[Part]:
    """Take off the line what has room; who is too large holds up nobody behind."""
    chosen: list[Part] = []
    left: list[Part] = []
    while line:
        part, rest = _divided(line.popleft(), room)
        if part:
            chosen.append(part)
            room -= items_of(part)
        if rest:
            left.append(rest)
    line.extend(left)
    return chosen


def take_in_turn(line: deque[Part], room: int) -> list[Part]:
    """Take off the line as many as there is room for any; the last may be too large."""
    chosen: list[Part] = []
    while line and room > 0:
        whole = line.popleft()
        number = filling([request.input.samples for request in whole], room)
        chosen.append(whole[:number])
        room -= items_of(whole[:number])
        if whole[number:]:
            line.appendleft(whole[number:])
    return chosen


def take_just(line: deque[Part], items: int) -> Part:
    """Take off the line the first that is just so large; nothing if none is."""
    for number, whole in enumerate(line):
        part, rest = _divided(whole, items)
        if items_of(part) == items:
            del line[number]
            if rest:
                line.insert(number, rest)
            return part
    return ()
