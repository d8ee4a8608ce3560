"""What a model wrote as OpenAI's bodies. Pure; used by the routes and by lines of batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synapse.api.openai.calls import CallPart, Content, Part
from synapse.api.openai.requests import Ask, Told, told_tier
from synapse.domain.inference import Choice, Completion, TokenLogprob
from synapse.domain.job import Usage

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heading:
    """What every part of an answer has in common."""

    id: str
    created: int
    model: str
    fingerprint: str | None = None


def fingerprint(model: str, version: str) -> str:
    """OpenAI's `system_fingerprint`: it changes when answers may."""
    return f"fp_{hashlib.sha256(f'{model}@{version}'.encode()).hexdigest()[:10]}"


def answer_body(
    ask: Ask, heading: Heading, completions: Sequence[Completion], *, keeps_tier: bool = False
) -> Body:
    """The whole answer; `completions` are those of the prompts, in their order."""
    told = ask.told
    choices = [choice for completion in completions for choice in completion.choices]
    render = chat_choice if told.is_chat else text_choice
    body: Body = {
        "id": heading.id,
        "object": "chat.completion" if told.is_chat else "text_completion",
        "created": heading.created,
        "model": heading.model,
        "choices": [render(ask, heading.id, at, choice) for at, choice in enumerate(choices)],
        "usage": usage_body(total_usage([completion.usage for completion in completions])),
        "system_fingerprint": heading.fingerprint,
    }
    tier = told_tier(ask, keeps_tier)
    return body if tier is None else body | {"service_tier": tier}


def chat_choice(ask: Ask, answer_id: str, index: int, choice: Choice) -> Body:
    """One choice of a chat answer."""
    content, calls = _told_apart(ask.told, choice.text)
    message: Body = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = [
            {
                "id": call_id(answer_id, index, at),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for at, (name, arguments) in enumerate(calls)
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(choice.logprobs, ask.told.top_logprobs),
        "finish_reason": finish_reason(choice.finish_reason, bool(calls)),
    }


def text_choice(ask: Ask, answer_id: str, index: int, choice: Choice) -> Body:
    """One choice of a completion."""
    prompt = echo(ask, index)
    return {
        "index": index,
        "text": prompt + choice.text,
        "logprobs": text_logprobs(choice.logprobs, ask.told.top_logprobs, 0),
        "finish_reason": choice.finish_reason,
    }


def echo(ask: Ask, index: int) -> str:
    """What precedes the choice: its prompt, if that was asked for."""
    return ask.told.echoes[index // ask.samples] if ask.told.echoes else ""


def finish_reason(reason: str, has_calls: bool) -> str:
    """OpenAI's reason for the end of a choice."""
    return "tool_calls" if has_calls and reason == "stop" else reason


def call_id(answer_id: str, index: int, call: int) -> str:
    """The id of a call: the same whenever the same answer is rendered."""
    return f"call_{_digest(f'{answer_id}/{index}/{call}')}"


def item_id(prefix: str, answer_id: str, index: int) -> str:
    """The id of an item of a response: likewise."""
    return f"{prefix}_{_digest(f'{prefix}/{answer_id}/{index}')}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def usage_body(usage: Usage) -> Body:
    """Tokens read and written."""
    body: Body = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens is not None:
        body["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return body


def total_usage(usages: Sequence[Usage]) -> Usage:
    """The usage of all of them together."""
    cached = [usage.cached_tokens for usage in usages if usage.cached_tokens is not None]
    return Usage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(cached) if cached else None,
    )


def chat_logprobs(tokens: Sequence[TokenLogprob], top: int | None) -> Body | None:
    """Log probabilities as chat answers tell them; None if they were not asked for.

    A token without text, such as one that ended the answer, is not part of it.
    """
    if top is None:
        return None
    return {"content": token_logprobs(tokens, top), "refusal": None}


def token_logprobs(tokens: Sequence[TokenLogprob], top: int) -> list[Body]:
    """The log probability of each token that has a text, and the likeliest in its place."""
    return [
        {
            **_token(each.token, each.logprob),
            "top_logprobs": [_token(token, value) for token, value in each.top[:top]],
        }
        for each in tokens
        if each.token
    ]


def text_logprobs(tokens: Sequence[TokenLogprob], top: int | None, offset: int) -> Body | None:
    """Log probabilities as completions tell them; the first token stands at `offset`."""
    if top is None:
        return None
    tokens = [each for each in tokens if each.token]
    offsets = []
    for each in tokens:
        offsets.append(offset)
        offset += len(each.token)
    return {
        "tokens": [each.token for each in tokens],
        "token_logprobs": [each.logprob for each in tokens],
        "top_logprobs": [dict(each.top[:top]) | {each.token: each.logprob} for each in tokens],
        "text_offset": offsets,
    }


def _token(token: str, logprob: float) -> Body:
    # Of a token that is no whole character, the engine's text does not tell the bytes.
    known = None if "\N{REPLACEMENT CHARACTER}" in token else list(token.encode())
    return {"token": token, "logprob": logprob, "bytes": known}


def _told_apart(told: Told, text: str) -> tuple[str | None, list[tuple[str, str]]]:
    """Content and calls of a whole choice."""
    if told.calling is None:
        return text, []
    reader = told.calling.reader()
    return gathered([*reader.feed(text), *reader.finish()])


def gathered(parts: Sequence[Part]) -> tuple[str | None, list[tuple[str, str]]]:
    """Parts put together: the content (None beside calls if there is none), name and arguments."""
    content = "".join(part.text for part in parts if isinstance(part, Content))
    calls: list[tuple[str, str]] = []
    for part in parts:
        if isinstance(part, CallPart):
            if part.name is not None:
                calls.append((part.name, ""))
            name, arguments = calls[part.index]
            calls[part.index] = (name, arguments + part.arguments)
    return (content or None) if calls else content, calls
