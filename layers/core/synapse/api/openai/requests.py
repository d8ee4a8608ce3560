"""OpenAI's bodies as what is asked of a model. Pure; used by the routes and by lines of batches.

A body is read in two steps: `read_chat` and `read_completion` need nothing but the body,
`check_model` then holds what was read against the model that is to serve it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synapse.api.openai.messages import conversation
from synapse.api.openai.schemas import (
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    ResponseFormat,
)
from synapse.api.openai.tools import Calling, calling
from synapse.api.openai.unsupported import (
    UnsupportedParameter,
    refuse_unsupported,
    refuse_without_effect,
)
from synapse.domain.access import Principal
from synapse.domain.errors import InvalidRequest
from synapse.domain.inference import ModelInput, TextOrTokens
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, Task

DEFAULT_MAX_TOKENS = 16
"""Of a completion; a chat answer may fill what is left of the context."""

TIERS = {"priority": SlaTier.GOLD, "flex": SlaTier.BRONZE}

SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "min_tokens", "ignore_eos", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
)
"""Parameters that have the same name and meaning here and there (vLLM's)."""

GUIDED = ("json", "regex", "choice", "grammar")
NO_FORM = {"json_object": False}


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
    parameter that says how long an answer may be. With `names_tier` the body says which it wants.
    """

    model: str
    inputs: tuple[ModelInput, ...]
    told: Told
    tier: SlaTier = SlaTier.SILVER
    stream: bool = False
    affinity: str = ""
    length_at: str = "max_tokens"
    names_tier: bool = True

    @property
    def samples(self) -> int:
        """Choices for each prompt."""
        return self.inputs[0].samples


def read_chat(body: ChatRequest) -> Ask:
    """What a chat body asks for.

    Raises:
        InvalidRequest: it contradicts itself, or asks for what cannot be honoured.
    """
    _check_shared(body)
    calls = calling(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise _invalid("top_logprobs", "needs logprobs: true")
    top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    parameters = _sampling(body) | {"max_tokens": _chat_length(body)}
    if calls is not None and calls.stops:
        parameters["stop"] = [*parameters.get("stop", ()), *calls.stops]
    forms = _forms(body)
    forms["response_format"] = _response_format(body.response_format)
    if calls is not None:
        forms["tools"] = {"json": calls.schema} if calls.schema else None
    form_from, form = _one_form(forms)
    if form and calls is not None and form_from != "tools":
        raise _invalid("tools", "cannot be called by an answer that is held to another form")
    if form:
        parameters["structured_outputs"] = form
    if top_logprobs is not None:
        parameters["logprobs"] = top_logprobs
    value = ModelInput(
        messages=conversation(body.messages),
        parameters=parameters,
        tools=() if calls is None else calls.tools,
        samples=body.n or 1,
    )
    return _ask(body, (value,), top_logprobs, form_from, calls=calls)


def read_completion(body: CompletionRequest) -> Ask:
    """What a completion body asks for.

    Raises:
        InvalidRequest: it contradicts itself, or asks for what cannot be honoured.
    """
    _check_shared(body)
    samples = body.n or 1
    if body.best_of not in (None, samples):
        raise UnsupportedParameter("best_of: is supported only as equal to n", param="best_of")
    parameters = _sampling(body) | {"max_tokens": body.max_tokens or DEFAULT_MAX_TOKENS}
    form_from, form = _one_form(_forms(body))
    if form:
        parameters["structured_outputs"] = form
    if body.logprobs is not None:
        parameters["logprobs"] = body.logprobs
    prompts = _prompts(body.prompt)
    inputs = tuple(ModelInput(each, parameters=parameters, samples=samples) for each in prompts)
    return _ask(body, inputs, body.logprobs, form_from, echoes=_echoes(body, prompts))


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


def _ask(
    body: GenerationRequest,
    inputs: tuple[ModelInput, ...],
    top_logprobs: int | None,
    form_from: str,
    *,
    calls: Calling | None = None,
    echoes: tuple[str, ...] = (),
) -> Ask:
    options = body.stream_options
    tier = TIERS.get(body.service_tier or "auto", SlaTier.SILVER)
    told = Told(
        is_chat=isinstance(body, ChatRequest),
        top_logprobs=top_logprobs,
        echoes=echoes,
        calling=calls,
        tier=None if body.service_tier is None else _told_as(tier),
        form_from=form_from,
        usage_at_end=bool(options and options.include_usage),
        usage_in_each=bool(options and options.continuous_usage_stats),
    )
    affinity = body.prompt_cache_key or body.safety_identifier or body.user or ""
    names_tier = body.service_tier not in (None, "auto")
    return Ask(
        body.model, inputs, told, tier, bool(body.stream), affinity, _length_at(body), names_tier
    )


def in_tier_of(ask: Ask, caller: Principal) -> Ask:
    """The same in a tier that the caller has, where its body names none."""
    if ask.names_tier:
        return ask
    tier = caller.tier_or(ask.tier)
    told = ask.told if ask.told.tier is None else replace(ask.told, tier=_told_as(tier))
    return replace(ask, tier=tier, told=told)


def _told_as(tier: SlaTier) -> str:
    return "flex" if tier is SlaTier.BRONZE else "default"


def told_tier(ask: Ask, keeps_tier: bool) -> str | None:
    """What the answer says of its tier: `priority` only if it was served as that."""
    if ask.told.tier is not None and ask.tier is SlaTier.GOLD and keeps_tier:
        return "priority"
    return ask.told.tier


def _check_shared(body: GenerationRequest) -> None:
    refuse_unsupported(body)
    if body.stream_options is not None:
        refuse_unsupported(body.stream_options, "stream_options.")
        if not body.stream:
            raise _invalid("stream_options", "is only for requests with stream: true")
    for token in body.logit_bias or ():
        if not (token.isascii() and token.isdigit()):
            raise _invalid("logit_bias", f"its keys are token ids, and {token!r} is none")


def _sampling(body: GenerationRequest) -> dict[str, Any]:
    """What was given of the parameters that go to the engine as they are."""
    given = {name: getattr(body, name) for name in SAMPLING}
    parameters = {name: value for name, value in given.items() if value not in (None, {})}
    if body.stop:
        parameters["stop"] = [body.stop] if isinstance(body.stop, str) else list(body.stop)
    return parameters


def _chat_length(body: ChatRequest) -> int | None:
    """None lets the answer fill what is left of the context."""
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise _invalid("max_tokens", "differs from max_completion_tokens; give one of them")
    return old if new is None else new


def _length_at(body: GenerationRequest) -> str:
    """The parameter by which the caller says how long an answer may be."""
    if isinstance(body, ChatRequest) and body.max_completion_tokens is not None:
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


def _forms(body: GenerationRequest) -> dict[str, Mapping[str, Any] | None]:
    """The forms that vLLM's parameters hold the answer to, by the parameter."""
    asked = body.structured_outputs
    nested = asked.model_dump(by_alias=True, exclude_none=True) if asked else {}
    if len(nested) > 1:
        raise _invalid("structured_outputs", "holds one constraint at most")
    forms: dict[str, Mapping[str, Any] | None] = {"structured_outputs": nested}
    for kind in GUIDED:
        value = getattr(body, f"guided_{kind}")
        forms[f"guided_{kind}"] = None if value is None else {kind: value}
    return forms


def _one_form(forms: Mapping[str, Mapping[str, Any] | None]) -> tuple[str, Mapping[str, Any]]:
    """The form that the answer is held to (empty if to none), and the parameter that says so."""
    given = [(name, form) for name, form in forms.items() if form and form != NO_FORM]
    if len(given) > 1:
        names = " and ".join(name for name, _ in given)
        raise _invalid("response_format", f"the answer can be held to one form, not to {names}")
    return given[0] if given else ("structured_outputs", {})


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
