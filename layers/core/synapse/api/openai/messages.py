"""OpenAI's messages as the turns of a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.api.openai.schemas import ChatTurn, ContentPart
from synapse.api.openai.unsupported import UnsupportedParameter, refuse_unsupported
from synapse.domain.errors import InvalidRequest
from synapse.domain.inference import ChatMessage, ToolCall

ROLES = {"developer": "system"}
"""What models were trained on, for roles that are OpenAI's own."""

SENT_BACK = (
    *("annotations", "parsed"),  # OpenAI's SDKs
    *("provider_specific_fields", "reasoning", "reasoning_content"),  # LiteLLM, AI SDK, Spring AI
)
"""What clients put into the assistant's messages, and send with them in the next turn."""


def conversation(turns: Sequence[ChatTurn]) -> tuple[ChatMessage, ...]:
    """The turns in our terms.

    Raises:
        InvalidRequest: a turn is not what its role asks for, or holds more than text.
    """
    return tuple(_message(turn, f"messages.{at}.") for at, turn in enumerate(turns))


def _message(turn: ChatTurn, place: str) -> ChatMessage:
    refuse_unsupported(turn, place)
    for name in SENT_BACK:
        if getattr(turn, name) is not None and turn.role != "assistant":
            raise _invalid(f"{place}{name}", "is only for messages of the assistant")
    if turn.tool_calls and turn.role != "assistant":
        raise _invalid(f"{place}tool_calls", "only the assistant calls tools")
    if turn.tool_call_id is None and turn.role == "tool":
        raise _invalid(f"{place}tool_call_id", "is required: which call this answers")
    if turn.tool_call_id is not None and turn.role != "tool":
        raise _invalid(f"{place}tool_call_id", "is only for messages of a tool")
    return ChatMessage(
        role=ROLES.get(turn.role, turn.role),
        content=_content(turn, place),
        name=turn.name,
        tool_calls=tuple(
            ToolCall(call.id, call.function.name, call.function.arguments)
            for call in turn.tool_calls or ()
        ),
        tool_call_id=turn.tool_call_id,
    )


def _content(turn: ChatTurn, place: str) -> str:
    if isinstance(turn.content, str):
        return turn.content
    if turn.content is None:
        if turn.role == "assistant":  # of one that broke off, or wrote nothing but calls
            return turn.refusal or ""
        raise _invalid(f"{place}content", "is required")
    parts = enumerate(turn.content)
    return "\n".join(_text(part, f"{place}content.{at}.") for at, part in parts)


def _text(part: ContentPart, place: str) -> str:
    if part.type == "text" and part.text is not None:
        refuse_unsupported(part, place)
        return part.text
    if part.type == "refusal" and part.refusal is not None:
        refuse_unsupported(part, place)
        return part.refusal
    if part.type in ("text", "refusal"):
        raise _invalid(f"{place}{part.type}", "is required")
    raise UnsupportedParameter(
        f"{place}type: {part.type!r} is not understood here, only 'text'", param=f"{place}type"
    )


def _invalid(param: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {reason}", param=param)
