"""What /v1/responses is sent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from synapse.api.inputs import Text
from synapse.api.json_values import Effort, JsonObject, TemplateVariables
from synapse.api.openai.responses.items import Input, Other, kind_of
from synapse.api.openai.schemas import (
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
    FunctionSpec,
    GenerationRequest,
    Unsupported,
)
from synapse.api.schemas import Request

LOGPROBS = "message.output_text.logprobs"

Included = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
]
"""What may be told besides. Of all but the first there is nothing to tell: it is not made here."""


class FunctionTool(FunctionSpec):
    """A function that the model may call."""

    type: Literal["function"]


Tool = Annotated[
    Annotated[FunctionTool, Tag("list[function]")] | Annotated[Other, Tag("list[other]")],
    Discriminator(
        lambda value: "list[function]" if kind_of(value) in ("function", "") else "list[other]"
    ),
]


class NamedFunction(Request):
    """The one function that is to be called."""

    type: Literal["function"]
    name: Text


class AllowedFunction(Request):
    """A function that may be called, by its name."""

    type: Literal["function"]
    name: Text


class AllowedTools(Request):
    """Those of the tools that may be called this time."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedFunction], Field(min_length=1, max_length=MAX_TOOLS)]


CHOICES = {"function": "list[named]", "": "list[named]", "allowed_tools": "list[allowed]"}

ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("str")]
    | Annotated[NamedFunction, Tag("list[named]")]
    | Annotated[AllowedTools, Tag("list[allowed]")]
    | Annotated[Other, Tag("list[other]")],
    Discriminator(
        lambda value: (
            "str" if isinstance(value, str) else CHOICES.get(kind_of(value), "list[other]")
        )
    ),
]


class TextFormat(Request):
    """The form of the answer; a JSON schema stands in it with its name."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = None
    description: str | None = None
    schema_: JsonObject | None = Field(default=None, alias="schema")
    strict: bool | None = Field(default=None, description="The answer always follows the schema.")


class TextConfig(Request):
    """How the text is to be."""

    format: TextFormat | None = None
    verbosity: Unsupported = None


class Reasoning(Request):
    """How models that reason are to do so."""

    effort: Effort | None = None
    summary: Unsupported = None
    generate_summary: Unsupported = None
    context: Unsupported = None
    mode: Unsupported = None


class EventOptions(Request):
    """What a stream tells besides its events."""

    include_obfuscation: Unsupported = None


class ResponsesRequest(GenerationRequest):
    """The body of POST /v1/responses."""

    input: Input = Field(description="A text, or the items of the whole conversation.")
    instructions: str | None = Field(
        default=None, description="What the model is told before the conversation."
    )
    max_output_tokens: int | None = Field(
        default=None, ge=1, description="Tokens to write at most; left out: what the context holds."
    )
    include: list[Included] | None = None
    text: TextConfig | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    reasoning: Reasoning | None = None
    chat_template_kwargs: TemplateVariables | None = None
    stream_options: EventOptions | None = None
    client_metadata: JsonObject | None = Field(
        default=None, description="What a client says of itself (Codex's); has no effect."
    )
    access_programs: Unsupported = None
    background: Unsupported = None
    context_management: Unsupported = None
    conversation: Unsupported = None
    image: Unsupported = None
    max_tool_calls: Unsupported = None
    max_tokens: Unsupported = None
    messages: Unsupported = None
    moderation: Unsupported = None
    previous_response_id: Unsupported = None
    prompt: Unsupported = None
    prompt_cache_options: Unsupported = None
    response_format: Unsupported = None
    truncation: Unsupported = None

    @property
    def functions(self) -> list[FunctionTool]:
        """The functions among the tools."""
        return [tool for tool in self.tools or () if isinstance(tool, FunctionTool)]

    @property
    def wants_logprobs(self) -> bool:
        """Whether the log probabilities of tokens are to be told."""
        return LOGPROBS in (self.include or ())
