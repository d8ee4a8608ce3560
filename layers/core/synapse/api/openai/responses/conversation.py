"""The items of a response's input as the turns of a conversation. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from synapse.api.openai.messages import ROLES
from synapse.api.openai.responses.items import (
    Call,
    CallOutput,
    Item,
    Message,
    Other,
    Part,
    ReasoningItem,
    RefusalPart,
)
from synapse.api.openai.responses.refused import not_known
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.domain.errors import InvalidRequest
from synapse.domain.inference import ChatMessage, ToolCall

ITEMS = "'message', 'function_call' and 'function_call_output'"
PARTS = "'input_text', 'output_text' and 'refusal'"


def conversation(body: ResponsesRequest) -> tuple[ChatMessage, ...]:
    """The turns in our terms, the instructions first.

    A model writes its calls and the text around them in one turn: items of the assistant's that
    follow each other, with calls among them, so become one again.

    Raises:
        InvalidRequest: an item is of a kind that is not understood here.
    """
    turns: list[ChatMessage] = []
    if body.instructions:
        turns.append(ChatMessage("system", body.instructions))
    if isinstance(body.input, str):
        return (*turns, ChatMessage("user", body.input))
    for turn in _turns(body.input):
        before = turns[-1] if turns else turn
        both_assistants = bool(turns) and before.role == turn.role == "assistant"
        if both_assistants and (turn.tool_calls or before.tool_calls):
            turns[-1] = _joined(before, turn)
        else:
            turns.append(turn)
    if all(isinstance(item, ReasoningItem) for item in body.input):
        raise InvalidRequest("input: there is no message in it", param="input")
    return tuple(turns)


def _joined(before: ChatMessage, after: ChatMessage) -> ChatMessage:
    content = "\n".join(text for text in (before.content, after.content) if text)
    return replace(before, content=content, tool_calls=(*before.tool_calls, *after.tool_calls))


def _turns(items: Sequence[Item]) -> Iterator[ChatMessage]:
    for at, item in enumerate(items):
        place = f"input.{at}."
        match item:
            case Message():
                text = _text(item.content, f"{place}content")
                yield ChatMessage(ROLES.get(item.role, item.role), text)
            case Call():
                call = ToolCall(item.call_id, item.name, item.arguments)
                yield ChatMessage("assistant", tool_calls=(call,))
            case CallOutput():
                text = _text(item.output, f"{place}output")
                yield ChatMessage("tool", text, tool_call_id=item.call_id)
            case Other():
                raise not_known(item, place, ITEMS)
            case ReasoningItem():
                pass


def _text(content: str | Sequence[Part], place: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_of_part(part, f"{place}.{at}.") for at, part in enumerate(content))


def _of_part(part: Part, place: str) -> str:
    if isinstance(part, Other):
        raise not_known(part, place, PARTS)
    return part.refusal if isinstance(part, RefusalPart) else part.text
