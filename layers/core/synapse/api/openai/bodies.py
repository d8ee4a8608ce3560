"""The answers of chat and completions, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from synapse.api.responses import ERRORS, ErrorBody, json_response
from synapse.api.wire import WireModel

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class AnswerModel(WireModel):
    """Base of what is sent: nothing that is not described."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PromptTokensDetails(AnswerModel):
    """Of the tokens read, those in the engine's prefix cache."""

    cached_tokens: int


class CompletionUsage(AnswerModel):
    """Tokens read and written; details where the engine tells them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None


class CalledFunction(AnswerModel):
    """A function that the model wants called; `arguments` is JSON text as the model wrote it."""

    name: str
    arguments: str


class AnswerToolCall(AnswerModel):
    """A call that the model asks for."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(AnswerModel):
    """What the model answers."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[AnswerToolCall] | None = None


class TopLogprob(AnswerModel):
    """A token, its log probability and its UTF-8 bytes (null if it is half a character)."""

    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(TopLogprob):
    """A token that was written, and the likeliest in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(AnswerModel):
    """Log probabilities of all tokens."""

    content: list[ContentLogprob]
    refusal: None


class ChatAnswerChoice(AnswerModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(AnswerModel):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatAnswerChoice]
    usage: CompletionUsage
    system_fingerprint: str | None
    service_tier: str | None = None


class TextLogprobs(AnswerModel):
    """Log probabilities of all tokens; `text_offset` counts from the start of the completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(AnswerModel):
    """One completion."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason


class TextCompletion(AnswerModel):
    """Completions of one or more prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage
    system_fingerprint: str | None
    service_tier: str | None = None


def answers(model: type[BaseModel]) -> dict[int, Any]:
    """What a route that generates text answers, if all goes well with a `model`."""
    whole = json_response("The answer, or with `stream: true` its chunks as events", model)
    whole["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    refused = {code: ERRORS[code] for code in (400, 404, 413, 422, 503)}
    late = json_response("It took longer than the caller waits", ErrorBody)
    return {200: whole, **refused, 504: late}


CHAT_RESPONSES = answers(ChatCompletion)
COMPLETION_RESPONSES = answers(TextCompletion)
