"""Conversations as the raw prompts that a model was trained on, by the model's own template.

The templates of model hubs are Jinja written for Hugging Face transformers, so the environment is
the one that transformers makes: sandboxed, the same whitespace rules, the same extra functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NoReturn

from jinja2 import Template
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from synapse.domain.errors import EngineError, InvalidInput
from synapse.domain.inference import ChatMessage
from synapse.domain.model import ModelSpec
from synapse.ports import InferenceRequest


class _RefusedByTemplate(TemplateError):
    """The template itself objects to the conversation."""


def prompt_of(model: ModelSpec, request: InferenceRequest) -> str:
    """The raw prompt of a request: its own, or its conversation rendered.

    Raises:
        InvalidInput: there is none, or the model cannot converse; see `render`.
    """
    value = request.input
    if isinstance(value.prompt, tuple):
        raise InvalidInput("prompt: this model takes no token ids; send text", param="prompt")
    if value.prompt is not None:
        return value.prompt
    if not value.messages:
        raise InvalidInput("there is neither a prompt nor a message")
    return render(model, value.messages)


def render(model: ModelSpec, messages: Sequence[ChatMessage]) -> str:
    """The prompt that makes the model answer the conversation.

    Raises:
        InvalidInput: the model has no template, or its template objects to these messages.
        EngineError: the template is broken, or tries what a template must not.
    """
    if model.chat_template is None:
        raise InvalidInput(
            f"model {model.name!r} has no chat template; send a prompt instead", param="messages"
        )
    try:
        return _compiled(model.chat_template).render(
            messages=[{"role": m.role, "content": m.content} for m in messages],
            add_generation_prompt=True,
            tools=None,
            documents=None,
            **_tokens(model.special_tokens),
        )
    except _RefusedByTemplate as refusal:
        raise InvalidInput(f"messages: {refusal.message}", param="messages") from refusal
    except Exception as error:
        # Whatever it is, the template did it; its text may hold parts of the conversation.
        raise EngineError(f"the chat template of model {model.name!r} failed") from error


@lru_cache(maxsize=64)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment.from_string(template)


def _tokens(special_tokens: Mapping[str, str]) -> dict[str, str]:
    return {f"{kind}_token": token for kind, token in special_tokens.items()}


def _raise_exception(message: str) -> NoReturn:
    raise _RefusedByTemplate(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now(UTC).strftime(pattern)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes HTML, which a prompt is not.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
