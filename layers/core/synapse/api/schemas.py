"""Requests and responses on the wire. Unknown fields are refused, never ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from synapse.api.inputs import Inputs, Text
from synapse.api.json_values import Effort, TemplateVariables
from synapse.api.receipts import CostBody, ReceiptBody
from synapse.api.wire import WireModel

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
PriorityName = Literal["high", "normal", "low"]
TierName = Literal["gold", "silver", "bronze"]
TopP = Annotated[float, Field(ge=0, le=1)]

CallbackUrl = Annotated[
    str | None,
    Field(
        default=None,
        max_length=2048,
        description=(
            "Where to post an event once the job has ended: https, to a public address. It is "
            "signed with the secret that POST /api/webhooks/callbacks/rotate gives."
        ),
    ),
]


class Request(WireModel):
    """Base of all request bodies: JSON types as they are, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def __repr__(self) -> str:
        """Its name alone.

        Powertools writes out what every handler is called with, for a log of debugging that nobody
        keeps: all would wait for as long as a body is, and what is asked does not belong there.
        """
        return f"<{type(self).__name__}>"


class SamplingParameters(Request):
    """Sampling parameters, under the names vLLM gives them."""

    max_tokens: int | None = Field(default=None, ge=1, description="Tokens to write at most.")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="0 always takes the likeliest."
    )
    top_p: TopP | None = Field(default=None, description="0 always takes the likeliest.")
    top_k: int | None = Field(default=None, ge=-1, description="-1 considers all tokens.")
    min_p: float | None = Field(default=None, ge=0, le=1)
    stop: Text | Annotated[list[Text], Field(max_length=32)] | None = Field(
        default=None, description="Text (or up to 32 texts) that ends the output; not part of it."
    )
    seed: int | None = Field(default=None, ge=0, le=2**32 - 1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=2)
    ignore_eos: bool | None = Field(default=None, description="Write on past the model's end.")


class Message(Request):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class AsyncInferRequest(Request):
    """A job: a prompt to continue, messages to answer, or inputs to embed."""

    model: Text = Field(description="One of the models that /v1/models lists.")
    prompt: Text | None = Field(default=None, description="Raw text to continue.")
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="A conversation; the model's own chat template is applied."
    )
    input: Inputs | None = Field(
        default=None,
        description=(
            "A text to embed, or up to 2,048 of them; or their token ids. The result's "
            "`embeddings` are base64 of little-endian 32-bit floats, in the order of the inputs."
        ),
    )
    parameters: SamplingParameters = SamplingParameters()
    reasoning_effort: Effort | None = None
    chat_template_kwargs: TemplateVariables | None = None
    priority: PriorityName = "normal"
    sla: TierName = "bronze"
    timeout: float | None = Field(
        default=None, gt=0, description="Seconds until the job expires unless it has ended."
    )
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] = Field(
        default_factory=dict, description="Up to 16 of your own strings, given back with the job."
    )
    callback_url: CallbackUrl = None


class TaskData(Request):
    """The input of the second shape."""

    text: Text


class TaskRequest(Request):
    """A job in the second shape."""

    data: TaskData
    model: Text | None = Field(
        default=None, description="Left out: the deployment's default model."
    )
    parameters: SamplingParameters = SamplingParameters()
    priority: PriorityName = "normal"
    timeout: float | None = Field(default=None, gt=0)
    callback_url: CallbackUrl = None


class TaskBatchRequest(Request):
    """Many jobs at once; each is judged on its own."""

    requests: Annotated[list[Any], Field(min_length=1, max_length=1000)] = Field(
        description="Up to 1,000 bodies of POST /api/inference."
    )


class JobAccepted(WireModel):
    """An accepted job. `estimated_wait_time` is in seconds, null until speed was measured.

    `cold_start` says that no worker is up for it: one is being started, which the wait includes.
    """

    jobId: str
    status: str
    queue_position: int
    estimated_wait_time: float | None
    cold_start: bool


class UsageBody(WireModel):
    """Tokens read and written; `cached_tokens` were in the engine's prefix cache, if it tells."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int | None = None


class Timings(WireModel):
    """Where the time went, in milliseconds; null while it has not happened yet."""

    queued_ms: float | None
    running_ms: float | None
    total_ms: float | None


class JobResult(WireModel):
    """A job as it stands.

    `cold_start` says that it waits for a worker to start, and `estimated_wait_time` how many
    seconds that should still take; null otherwise. `worker` is the one of the pool that ran it,
    null where the pool's one has no name; `routing` says why no pool met the job's tier, null where
    one did. `receipt` and `cost` are null until it has ended, and if it ended before it ran. Where
    the result is too large to answer with, it is null, and `result_url` says where to read it: a
    link to its JSON that wants no key, for five minutes; null otherwise. That JSON is the stored
    one, which has the `cached_tokens` of `usage` besides, where the engine told of them.
    """

    jobId: str
    status: str
    result: dict[str, Any] | None
    result_url: str | None
    usage: UsageBody | None
    error: dict[str, str | None] | None
    model: str
    version: str
    accelerator: str | None
    pool: str | None
    worker: str | None
    routing: str | None
    batch_size: int | None
    created_at: float
    cold_start: bool
    estimated_wait_time: float | None
    timings: Timings
    receipt: ReceiptBody | None
    cost: CostBody | None
    metadata: dict[str, str]


class TaskAccepted(WireModel):
    """An accepted job in the second shape."""

    task_id: str
    status: str
    queue_position: int
    estimated_wait_time: float | None
    cold_start: bool


class TaskResult(WireModel):
    """A job in the second shape; `processing_time` is in seconds.

    `receipt` and `cost` are null until it has ended, and if it ended before it ran. `result_url` is
    where to read the JSON of a result that is too large to answer with, for five minutes.
    """

    task_id: str
    status: str
    result: str | None
    result_url: str | None
    error: dict[str, str | None] | None
    processing_time: float | None
    cold_start: bool
    estimated_wait_time: float | None
    receipt: ReceiptBody | None
    cost: CostBody | None


class TaskBatchAccepted(WireModel):
    """What became of each request of a batch, in its order: a task or an error."""

    accepted: int
    rejected: int
    results: list[dict[str, Any]]


class ModelBody(WireModel):
    """A model as OpenAI lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(WireModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


class WorkerBody(WireModel):
    """What the pinger last saw of a worker."""

    model: str
    pool: str
    healthy: bool
    latency_ms: float
    checked_at: float
    detail: str


class HealthBody(WireModel):
    """`ok` when every worker tried lately answers; `starting` before any was tried.

    `degraded` also while a pool that is to have workers brings none up. Without a credential the
    status is all; with one, the workers of models that it may use.
    """

    status: Literal["ok", "degraded", "starting"]
    version: str = Field(default="", description="Only with a credential.")
    workers: list[WorkerBody] = Field(default=[], description="Only with a credential.")
    detail: str = Field(
        default="",
        description="What is the matter beside the workers, if anything is: the disk is full, say. "
        "Only with a credential.",
    )
