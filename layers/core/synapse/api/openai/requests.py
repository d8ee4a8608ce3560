"""OpenAI's bodies as what is asked of a model. Pure; used by the routes and by lines of batches.

A body is read in two steps: `read_chat` and `read_completion` need nothing but the body,
`check_model` then holds what was read against the model that is to serve it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synapse.api.json_values import EFFORT, refuse_two_efforts
from synapse.api.openai.messages import conversation
from synapse.api.openai.sampling import check_logit_bias, one_form, sampling, vllm_forms
from synapse.api.openai.schemas import (
    ChatRequest,
    ChoicesRequest,
    CompletionRequest,
    GenerationRequest,
    ResponseFormat,
)
from synapse.api.openai.tools import Calling, calling, wanted_tools
from synapse.api.openai.unsupported import (
    UnsupportedParameter,
    refuse_unsupported,
    refuse_without_effect,
)
from synapse.domain.access import Principal
from synapse.domain.errors import InvalidRequest
from synapse.domain.inference import ChatMessage, ModelInput, TextOrTokens
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, Task

DEFAULT_MAX_TOKENS = 16
"""Of a completion; a chat answer may fill what is left of the context."""

TIERS = {"priority": SlaTier.GOLD, "flex": SlaTier.BRONZE}


@dataclass(frozen=True, slots=True)
class Told:
    """How the answer is to be told.

    `top_logprobs` is how many alternatives are told of each token, None for no logprobs at all;
    `echoes` are the prompts where they precede their completions; `tier` is what the answer says
    of it unless it is served as `priority`, None if it was not asked for; `form_from` is the
    parameter that holds it to a form.
    """

    is_chat: bool
    top_logprobs: int | None = None
    echoes: tuple[str, ...] = ()
    calling: Calling | None = None
    tier: str | None = None
    form_from: str = "structured_outputs"
    usage_at_end: bool = False
    usage_in_each: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """What a body asks for: an input for each prompt, all with the same samples.

    `affinity` is the caller's own key for requests that have much in common, `length_at` the
    parameter that says how long an answer may be, `prompt_at` the one with what is to be read,
    `effort_at` the one that says how much to think.
    With `names_tier` the body says in which tier it wants it.
    """

    model: str
    inputs: tuple[ModelInput, ...]
    told: Told
    tier: SlaTier = SlaTier.SILVER
    stream: bool = False
    affinity: str = ""
    length_at: str = "max_tokens"
    prompt_at: str = "prompt"
    names_tier: bool = True
    effort_at: str = EFFORT

    @property
    def samples(self) -> int:
        """Choices for each prompt."""
        return self.inputs[0].samples


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation that is to be answered, whichever route it came by.

    `form` is what the parameter `form_at` holds the answer to. `variables` are for the model's
    template, and so is `effort`, which the parameter `effort_at` says.
    """

    messages: tuple[ChatMessage, ...]
    max_tokens: int | None
    top_logprobs: int | None
    calls: Calling | None
    form: Mapping[str, Any] | None
    form_at: str
    samples: int = 1
    variables: Mapping[str, Any] | None = None
    effort: str | None = None
    effort_at: str = EFFORT


def read_chat(body: ChatRequest) -> Ask:
    """What a chat body asks for.

    Raises:
        InvalidRequest: it contradicts itself, or asks for what cannot be honoured.
    """
    _check_shared(body)
    calls = calling(wanted_tools(body))
    if body.top_logprobs is not None and not body.logprobs:
        raise _invalid("top_logprobs", "needs logprobs: true")
    top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    talk = Talk(
        messages=conversation(body.messages),
        max_tokens=_chat_length(body),
        top_logprobs=top_logprobs,
        calls=calls,
        form=_response_format(body.response_format),
        form_at="response_format",
        samples=body.n or 1,
        variables=body.chat_template_kwargs,
        effort=body.reasoning_effort,
    )
    value, form_from = input_of(body, talk)
    told = _with_usage(body, Told(True, top_logprobs, calling=calls, form_from=form_from))
    return ask_of(body, (value,), told, length_at=_length_at(body), prompt_at="messages")


def input_of(body: GenerationRequest, talk: Talk) -> tuple[ModelInput, str]:
    """What a model is given of a conversation, and the parameter that holds it to a form.

    Raises:
        InvalidRequest: it is to be held to several, or to think more than one of its efforts.
    """
    calls, variables = talk.calls, talk.variables or {}
    refuse_two_efforts(talk.effort, variables, talk.effort_at)
    parameters = sampling(body) | {"max_tokens": talk.max_tokens}
    if calls is not None and calls.stops:
        parameters["stop"] = [*parameters.get("stop", ()), *calls.stops]
    forms = vllm_forms(body)
    # OpenAI's is of the text, and where a call is required there is none.
    forms[talk.form_at] = None if calls is not None and calls.schema else talk.form
    if calls is not None:
        forms["tools"] = {"json": calls.schema} if calls.schema else None
    form_from, form = one_form(forms, talk.form_at)
    if form and calls is not None and form_from != "tools":
        raise _invalid(
            "tools",
            f"cannot be called by an answer that {form_from} holds to a form; make that one more "
            "tool, or ask for it in a request of its own with tool_choice 'none'",
        )
    if form:
        parameters["structured_outputs"] = form
    if talk.top_logprobs is not None:
        parameters["logprobs"] = talk.top_logprobs
    tools = () if calls is None else calls.tools
    value = ModelInput(
        messages=talk.messages,
        parameters=parameters,
        tools=tools,
        samples=talk.samples,
        variables=variables,
        effort=talk.effort,
    )
    return value, form_from


def read_completion(body: CompletionRequest) -> Ask:
    """What a completion body asks for.

    Raises:
        InvalidRequest: it contradicts itself, or asks for what cannot be honoured.
    """
    _check_shared(body)
    samples = body.n or 1
    if body.best_of not in (None, samples):
        raise UnsupportedParameter("best_of: is supported only as equal to n", param="best_of")
    parameters = sampling(body) | {"max_tokens": body.max_tokens or DEFAULT_MAX_TOKENS}
    form_from, form = one_form(vllm_forms(body), "response_format")
    if form:
        parameters["structured_outputs"] = form
    if body.logprobs is not None:
        parameters["logprobs"] = body.logprobs
    prompts = _prompts(body.prompt)
    inputs = tuple(ModelInput(each, parameters=parameters, samples=samples) for each in prompts)
    told = Told(False, body.logprobs, _echoes(body, prompts), form_from=form_from)
    told = _with_usage(body, told)
    return ask_of(body, inputs, told, length_at="max_tokens", prompt_at="prompt")


def check_model(ask: Ask, spec: ModelSpec) -> None:
    """Refuse what this very model cannot do.

    Raises:
        InvalidRequest: that is asked for.
    """
    if spec.task is Task.EMBED:
        raise _invalid("model", f"{spec.name!r} writes no text; use it for /v1/embeddings")
    if spec.task is not Task.GENERATE and ask.told.is_chat:
        raise _invalid("model", f"{spec.name!r} does not chat; use it for /v1/completions")
    if spec.task is Task.TEXT:
        refuse_without_effect(ask.inputs[0], ask.told.form_from, spec.name)
    if ask.told.calling is not None and spec.tool_parser is None:
        raise UnsupportedParameter(
            f"tools: model {spec.name!r} was not made for tools", param="tools"
        )
    choices = len(ask.inputs) * ask.samples
    if choices > spec.slots:
        param = "n" if len(ask.inputs) == 1 else "prompt"
        raise _invalid(param, f"{choices} choices are more than the {spec.slots} made at once")


def ask_of(
    body: GenerationRequest,
    inputs: tuple[ModelInput, ...],
    told: Told,
    *,
    length_at: str,
    prompt_at: str,
    effort_at: str = EFFORT,
) -> Ask:
    """What is asked for, with what all kinds of generation say alike."""
    tier = TIERS.get(body.service_tier or "auto", SlaTier.SILVER)
    told = replace(told, tier=None if body.service_tier is None else _told_as(tier))
    affinity = body.prompt_cache_key or body.safety_identifier or body.user or ""
    names_tier = body.service_tier not in (None, "auto")
    return Ask(
        body.model,
        inputs,
        told,
        tier,
        bool(body.stream),
        affinity,
        length_at,
        prompt_at,
        names_tier,
        effort_at,
    )


def in_tier_of(ask: Ask, caller: Principal) -> Ask:
    """The same in a tier that the caller has, where its body names none."""
    if ask.names_tier:
        return ask
    tier = caller.tier_or(ask.tier)
    return ask if tier is ask.tier else as_tier(ask, tier)


def as_tier(ask: Ask, tier: SlaTier) -> Ask:
    """The same in that tier; its answer tells of it if it was to tell of any."""
    told = ask.told if ask.told.tier is None else replace(ask.told, tier=_told_as(tier))
    return replace(ask, tier=tier, told=told)


def _told_as(tier: SlaTier) -> str:
    return "flex" if tier is SlaTier.BRONZE else "default"


def told_tier(ask: Ask, keeps_tier: bool) -> str | None:
    """What the answer says of its tier: `priority` only if it was served as that."""
    if ask.told.tier is not None and ask.tier is SlaTier.GOLD and keeps_tier:
        return "priority"
    return ask.told.tier


def _check_shared(body: ChoicesRequest) -> None:
    refuse_unsupported(body)
    check_logit_bias(body)
    if body.stream_options is not None:
        refuse_unsupported(body.stream_options, "stream_options.")
        if not body.stream:
            raise _invalid("stream_options", "is only for requests with stream: true")


def _with_usage(body: ChoicesRequest, told: Told) -> Told:
    """The same, and when a stream tells its usage."""
    options = body.stream_options
    return replace(
        told,
        usage_at_end=bool(options and options.include_usage),
        usage_in_each=bool(options and options.continuous_usage_stats),
    )


def _chat_length(body: ChatRequest) -> int | None:
    """None lets the answer fill what is left of the context."""
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise _invalid("max_tokens", "differs from max_completion_tokens; give one of them")
    return old if new is None else new


def _length_at(body: ChatRequest) -> str:
    """The parameter by which the caller says how long an answer may be."""
    if body.max_completion_tokens is not None:
        return "max_completion_tokens"
    return "max_tokens"


def _response_format(wanted: ResponseFormat | None) -> Mapping[str, Any] | None:
    if wanted is None:
        return None
    if (wanted.json_schema is None) is (wanted.type == "json_schema"):
        raise _invalid("response_format.json_schema", "goes with type 'json_schema', and only so")
    if wanted.type == "text":
        return None
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        return {"json_object": True}
    return {"json": wanted.json_schema.schema_}


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> tuple[TextOrTokens, ...]:
    if isinstance(prompt, str):
        return (prompt,)
    tokens = [each for each in prompt if isinstance(each, int)]
    if tokens:
        return (tuple(tokens),)
    return tuple(each if isinstance(each, str) else tuple(each) for each in _lists(prompt))


def _lists(prompt: Sequence[str | int | list[int]]) -> Sequence[str | list[int]]:
    return [each for each in prompt if not isinstance(each, int)]


def _echoes(body: CompletionRequest, prompts: Sequence[TextOrTokens]) -> tuple[str, ...]:
    if not body.echo:
        return ()
    if body.logprobs is not None:
        raise UnsupportedParameter("echo: is not supported with logprobs", param="echo")
    texts = tuple(each for each in prompts if isinstance(each, str))
    if len(texts) < len(prompts):
        raise UnsupportedParameter("echo: is not supported with token ids", param="echo")
    return texts


def _invalid(param: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {reason}", param=param)
