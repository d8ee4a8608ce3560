"""The answer of /v1/responses, as the OpenAPI document describes it."""

from __future__ import annotations

from typing import Any, Literal

from synapse.api.openai.bodies import AnswerModel, answers
from synapse.api.receipts import ReceiptBody

Status = Literal["in_progress", "completed", "incomplete"]


class ItemTopLogprob(AnswerModel):
    """A token, its log probability and its UTF-8 bytes (none if it is half a character)."""

    token: str
    logprob: float
    bytes: list[int]


class ItemLogprob(ItemTopLogprob):
    """A token that was written, and the likeliest in its place."""

    top_logprobs: list[ItemTopLogprob]


class OutputText(AnswerModel):
    """What was written."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[ItemLogprob]


class OutputMessage(AnswerModel):
    """A message of the model's."""

    type: Literal["message"]
    id: str
    status: Status
    role: Literal["assistant"]
    content: list[OutputText]


class OutputCall(AnswerModel):
    """A function that the model wants called; `arguments` is JSON text as the model wrote it."""

    type: Literal["function_call"]
    id: str
    status: Status
    call_id: str
    name: str
    arguments: str


class InputDetails(AnswerModel):
    """Of the tokens read, those in the engine's prefix cache; what is written to it is free."""

    cached_tokens: int
    cache_write_tokens: Literal[0]


class OutputDetails(AnswerModel):
    """Of the tokens written, those of reasoning: none."""

    reasoning_tokens: Literal[0]


class ResponseUsage(AnswerModel):
    """Tokens read and written."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class IncompleteDetails(AnswerModel):
    """Why the answer is not whole."""

    reason: Literal["max_output_tokens"]


class ResponseError(AnswerModel):
    """What ended the answer."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class ResponseBody(AnswerModel):
    """A response: what was asked, and what came of it."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    background: Literal[False]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputMessage | OutputCall]
    usage: ResponseUsage | None
    service_tier: str | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: None
    prompt_cache_key: str | None
    reasoning: dict[str, str | None]
    safety_identifier: str | None
    store: Literal[False]
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float | None
    truncation: Literal["disabled"]
    user: str | None
    receipt: ReceiptBody | None = None


RESPONSES = answers(ResponseBody)
