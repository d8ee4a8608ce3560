"""What a request gives its model's chat template beside the conversation.

A template says nothing of the variables that it knows: they are read out of it, so that one that
would have no effect is refused, not passed over.
"""

from __future__ import annotations

from collections.abc import Mapping

from synapse.adapters.triton.templates import Reads, reads_of
from synapse.domain.errors import InvalidInput

VARIABLES = "chat_template_kwargs"
"""The parameter that holds them."""

EFFORT = "reasoning_effort"
"""The variable that says how much to think: gpt-oss's, Mistral's."""

SWITCHES = ("enable_thinking", "thinking")
"""Variables that say whether to think: Qwen's, GLM's and Gemma's; DeepSeek's and Granite's."""

NO_EFFORT = "none"


def variables_of(
    model: str, template: str, variables: Mapping[str, object], effort: str | None
) -> Mapping[str, object]:
    """The variables as the template of that model is given them, with what the effort stands for.

    Raises:
        InvalidInput: the template does not read what it is given.
        TemplateError: it is not valid Jinja.
    """
    if not variables and effort is None:
        return {}
    reads = reads_of(template)
    for name, given in variables.items():
        changes_nothing = name in SWITCHES and given is False and not reads.thinks
        if name not in reads.variables and given is not None and not changes_nothing:
            raise InvalidInput(
                f"chat_template_kwargs: the chat template of model {model!r} does not read "
                f"{name!r}",
                param="chat_template_kwargs",
            )
    if effort is None:
        return variables
    told = _of_effort(model, reads, effort)
    if variables.keys() & set(SWITCHES):
        # A template that reads both heeds the one or the other first: the caller's own decides.
        told = {name: value for name, value in told.items() if name not in SWITCHES}
    return {**told, **variables}


def _of_effort(model: str, reads: Reads, effort: str) -> dict[str, object]:
    variables: dict[str, object] = {
        name: effort != NO_EFFORT for name in SWITCHES if name in reads.variables
    }
    # To a template that has no word for it, no effort would be one more effort.
    if EFFORT in reads.variables and (effort != NO_EFFORT or NO_EFFORT in reads.words):
        variables[EFFORT] = effort
    if not variables and (effort != NO_EFFORT or reads.thinks or EFFORT in reads.variables):
        told = "not to think" if effort == NO_EFFORT else "how much to think"
        raise InvalidInput(
            f"{EFFORT}: model {model!r} cannot be told {told}; leave it out", param=EFFORT
        )
    return variables
