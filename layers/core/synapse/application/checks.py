"""What is checked of a request before anything is done for it, in both lanes."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.domain.access import Principal
from synapse.domain.errors import InvalidRequest, PayloadTooLarge, UnknownModel
from synapse.domain.inference import ModelInput
from synapse.domain.model import ModelSpec, Task
from synapse.ports import Registry

MAX_INPUT_BYTES = 1024 * 1024


async def served_model(registry: Registry, name: str, caller: Principal) -> ModelSpec:
    """The model of that name, as the caller may see it.

    Raises:
        UnknownModel: it is not served here, or not to this caller: nothing tells which.
    """
    spec = await registry.model(name)
    if spec is None or not caller.sees(name):
        choice = await _choice(registry, caller)
        raise UnknownModel(f"model: {name!r} is not served here; {choice}", param="model")
    return spec


async def runnable_model(registry: Registry, name: str, caller: Principal) -> ModelSpec:
    """The model of that name, of which there is a pool: without one its jobs would never run.

    Raises:
        UnknownModel: it is not served here, or not to this caller, or has no pool.
    """
    spec = await served_model(registry, name, caller)
    if not await registry.pools(name):
        choice = await _choice(registry, caller)
        raise UnknownModel(
            f"model: {name!r} is in the catalogue, but no pool serves it; {choice} (an operator "
            "adds it to the models of a pool)",
            param="model",
        )
    return spec


async def runnable_models(registry: Registry, caller: Principal) -> Sequence[ModelSpec]:
    """The models that the caller may see and that have a pool, by name."""
    seen = [model for model in await registry.models() if caller.sees(model.name)]
    return [model for model in seen if await registry.pools(model.name)]


async def _choice(registry: Registry, caller: Principal) -> str:
    known = [model.name for model in await runnable_models(registry, caller)]
    return f"choose one of: {', '.join(known) or 'none'}"


def check_input(
    value: ModelInput, spec: ModelSpec, max_input_bytes: int, length_at: str = "max_tokens"
) -> None:
    """Refuse what the model cannot take; `length_at` is where the request says how long.

    Raises:
        PayloadTooLarge: the input has more than `max_input_bytes` (UTF-8).
        InvalidRequest: the model is for another task, has no chat template, or cannot write so
            much; or it is to write more than it may.
    """
    size = value.size_bytes
    field_name = _field_name(value)
    if size > max_input_bytes:
        extra = value.extra_bytes
        of_extra = f" ({extra} of them are tools or variables of the template)" if extra else ""
        raise PayloadTooLarge(
            f"{field_name}: {size} bytes{of_extra} are too many; send at most {max_input_bytes}",
            param=field_name,
        )
    if bool(value.inputs) != (spec.task is Task.EMBED):
        does = "makes embeddings" if spec.task is Task.EMBED else "makes no embeddings"
        raise InvalidRequest(f"model: {spec.name!r} {does}; choose another model", param="model")
    if value.inputs and value.parameters:
        raise InvalidRequest("parameters: embeddings take none", param="parameters")
    if value.messages and spec.chat_template is None:
        raise InvalidRequest(
            f"messages: model {spec.name!r} has no chat template; send a prompt instead",
            param="messages",
        )
    max_tokens = value.parameters.get("max_tokens")
    if isinstance(max_tokens, int) and max_tokens > spec.max_output_tokens:
        raise InvalidRequest(
            f"{length_at}: {max_tokens} is more than the {spec.max_output_tokens} "
            f"that model {spec.name!r} can write",
            param=length_at,
        )
    least = value.parameters.get("min_tokens")
    most = max_tokens if isinstance(max_tokens, int) else spec.max_output_tokens
    if isinstance(least, int) and least > most:
        raise InvalidRequest(
            f"min_tokens: {least} is more than the {most} that may be written", param="min_tokens"
        )


def _field_name(value: ModelInput) -> str:
    if value.prompt is not None:
        return "prompt"
    return "messages" if value.messages else "input"
