"""What /v1/chat/completions and /v1/completions are sent.

Every documented parameter is declared: one that cannot be honoured (`Unsupported`) is refused by
name unless its value asks for what happens anyway, and what nobody knows is refused as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from synapse.api.inputs import Text, Tokens, kind_of_prompt
from synapse.api.json_values import Effort, JsonObject, TemplateVariables
from synapse.api.schemas import MetadataKey, MetadataValue, Request, TopP

MAX_CHOICES = 8
MAX_PROMPTS = 128
MAX_STOPS = 32
MAX_TOP_LOGPROBS = 20
MAX_TOOLS = 128


Schema = Annotated[
    Annotated[JsonObject, Tag("list[object]")] | Annotated[Text, Tag("str")],
    Discriminator(lambda value: "str" if isinstance(value, str) else "list[object]"),
]
"""A JSON schema, or its text."""

UNUSED = Field(description="What clients send back with the assistant's messages; has no effect.")

CACHE_CONTROL = Field(
    exclude=True, description="Where a prefix ends (Anthropic's); has no effect, all are kept."
)
BREAKPOINT = Field(
    exclude=True, description="Where a prefix ends (OpenAI's); has no effect, all are kept."
)

Unsupported = Annotated[Any, Field(description="Only the value that changes nothing is accepted.")]


def text_or_list(value: Any) -> str:
    return "list[]" if isinstance(value, list) else "str"


Prompt = Annotated[
    Annotated[str, Tag("str")]
    | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS), Tag("list[str]")]
    | Annotated[Tokens, Tag("list[int]")]
    | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_PROMPTS), Tag("list[list]")],
    Discriminator(kind_of_prompt),
]
Stop = Annotated[
    Annotated[Text, Tag("str")] | Annotated[list[Text], Field(max_length=MAX_STOPS), Tag("list[]")],
    Discriminator(text_or_list),
]


class StreamOptions(Request):
    """What a stream tells besides its text."""

    include_usage: bool | None = Field(default=None, description="A last chunk with the usage.")
    continuous_usage_stats: bool | None = Field(
        default=None, description="The usage so far in every chunk (vLLM's)."
    )
    include_obfuscation: Unsupported = None


class StructuredOutputs(Request):
    """A constraint on what is written (vLLM's); exactly one."""

    json_: Schema | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: Text | None = None
    choice: Annotated[list[Text], Field(min_length=1)] | None = None
    grammar: Text | None = None


class GenerationRequest(Request):
    """What all kinds of generation have in common."""

    model: Text = Field(description="One of the models that /v1/models lists.")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        default=None, description="Token ids of the model's vocabulary, and what to add to each."
    )
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | None = Field(
        default=None, description="Text (or up to 32 texts) that ends the output; not part of it."
    )
    stream: bool | None = Field(default=None, description="Send it as it is written.")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="0 always takes the likeliest."
    )
    top_p: TopP | None = Field(default=None, description="0 always takes the likeliest.")
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = Field(
        default=None, description="Requests with the same key go to the same worker if they can."
    )
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = Field(
        default=None, description="`flex` runs only where a slot is free; `priority` goes first."
    )
    store: Unsupported = None
    prompt_cache_retention: Unsupported = None

    top_k: int | None = Field(default=None, ge=-1, description="-1 considers all tokens.")
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=2)
    ignore_eos: bool | None = Field(default=None, description="Write on past the model's end.")
    min_tokens: int | None = Field(default=None, ge=0)
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: Text | None = None
    guided_choice: Annotated[list[Text], Field(min_length=1)] | None = None
    guided_grammar: Text | None = None
    priority: Unsupported = None
    bad_words: Unsupported = None
    include_stop_str_in_output: Unsupported = None
    length_penalty: Unsupported = None
    prompt_logprobs: Unsupported = None
    skip_special_tokens: Unsupported = None
    spaces_between_special_tokens: Unsupported = None
    stop_token_ids: Unsupported = None
    truncate_prompt_tokens: Unsupported = None
    use_beam_search: Unsupported = None


class ChoicesRequest(GenerationRequest):
    """What chat and completions have in common: they answer with one or more choices."""

    max_tokens: int | None = Field(default=None, ge=1, description="Tokens to write at most.")
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES, description="Choices wanted.")
    stream_options: StreamOptions | None = None


class ContentPart(Request):
    """A part of a message; only text is understood."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Unsupported = None
    input_audio: Unsupported = None
    file: Unsupported = None
    cache_control: Annotated[Any, CACHE_CONTROL] = None
    prompt_cache_breakpoint: Annotated[Any, BREAKPOINT] = None


class FunctionCall(Request):
    """A call as the model wrote it; `arguments` is JSON text."""

    name: Text
    arguments: str
    parsed_arguments: Annotated[Any, UNUSED] = None


class MessageToolCall(Request):
    """A call that the assistant asked for."""

    id: Text
    type: Literal["function"] = "function"
    function: FunctionCall
    index: Annotated[int | None, UNUSED] = None


class ChatTurn(Request):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: (
        Annotated[
            Annotated[str, Tag("str")] | Annotated[list[ContentPart], Tag("list[]")],
            Discriminator(text_or_list),
        ]
        | None
    ) = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    annotations: Annotated[list[Any] | None, UNUSED] = None
    parsed: Annotated[Any, UNUSED] = None
    provider_specific_fields: Annotated[Any, UNUSED] = None
    reasoning: Annotated[Any, UNUSED] = None
    reasoning_content: Annotated[Any, UNUSED] = None
    audio: Unsupported = None
    function_call: Unsupported = None
    cache_control: Annotated[Any, CACHE_CONTROL] = None


class FunctionSpec(Request):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: JsonObject | None = Field(default=None, description="A JSON schema.")
    strict: bool | None = Field(
        default=None, description="Kept where a call is sure; with tool_choice 'auto' a wish."
    )


class ToolSpec(Request):
    """A tool; only functions are known."""

    type: Literal["function"]
    function: FunctionSpec
    cache_control: Annotated[Any, CACHE_CONTROL] = None


class NamedFunction(Request):
    """A function by its name."""

    name: Text


class NamedTool(Request):
    """The one tool that is to be called."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("str")]
    | Annotated[NamedTool, Tag("list[named]")],
    # It is asked of what was read, too, when that is written again.
    Discriminator(lambda value: "list[named]" if isinstance(value, Mapping | NamedTool) else "str"),
]


class JsonSchemaFormat(Request):
    """A JSON schema that the answer is to follow."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: JsonObject | None = Field(default=None, alias="schema")
    strict: bool | None = Field(default=None, description="The answer always follows the schema.")


class ResponseFormat(Request):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class ChatRequest(ChoicesRequest):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatTurn], Field(min_length=1, max_length=2048)]
    max_completion_tokens: int | None = Field(
        default=None, ge=1, description="Tokens to write at most; left out: what the context holds."
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ToolSpec], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: TemplateVariables | None = None
    audio: Unsupported = None
    function_call: Unsupported = None
    functions: Unsupported = None
    modalities: Unsupported = None
    moderation: Unsupported = None
    prediction: Unsupported = None
    prompt_cache_options: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None
    add_generation_prompt: Unsupported = None
    continue_final_message: Unsupported = None


class CompletionRequest(ChoicesRequest):
    """The body of POST /v1/completions."""

    prompt: Prompt = Field(description="A text or its token ids, or a list of either.")
    best_of: int | None = Field(default=None, ge=1, description="Only the same as `n`.")
    echo: bool | None = Field(default=None, description="Send the prompt before its completion.")
    logprobs: int | None = Field(default=None, ge=0, le=5)
    suffix: Unsupported = None
