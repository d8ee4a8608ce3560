"""What a model is given and what it answers. Plain data, shared by both lanes and both targets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from synapse.domain.extension import NO_EXTENSIONS, Extension, Extensions
from synapse.domain.job import Usage


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation; `tool_call_id` names the call that a tool's turn answers."""

    role: str
    content: str = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


TextOrTokens = str | tuple[int, ...]
"""A text, or the ids of its tokens in the model's own vocabulary."""


RANDOM_SEED = -1
"""What vLLM, and so every engine here, takes for no seed at all."""

TOKEN_IDS: Extensions = frozenset({Extension.PROMPT_TOKEN_IDS})


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One item for a model: a prompt to continue, messages to answer, or inputs to embed.

    Exactly one of `prompt`, `messages` and `inputs` is given. `tools` are OpenAI's function
    descriptions. `parameters` are sampling parameters under vLLM's names; `samples` is how many
    continuations are wanted, each drawn for itself. `variables` are given to the chat template
    besides, and `effort` says how much the model is to think (`none`: not at all), if anybody said.
    `extra_bytes` is the size of tools and variables, as JSON in UTF-8: it is asked for often, and
    takes its time.
    """

    prompt: TextOrTokens | None = None
    messages: tuple[ChatMessage, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    tools: tuple[Mapping[str, object], ...] = ()
    inputs: tuple[TextOrTokens, ...] = ()
    samples: int = 1
    variables: Mapping[str, object] = field(default_factory=dict)
    effort: str | None = None
    extra_bytes: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Measure tools and variables, once."""
        given = [each for each in (self.tools, self.variables) if each]
        if given:
            size = sum(_size(json.dumps(each, ensure_ascii=False)) for each in given)
            object.__setattr__(self, "extra_bytes", size)  # it is frozen

    @property
    def size_bytes(self) -> int:
        """The size of the text the model reads, in UTF-8 bytes (tokens count four).

        It reads the tools that it may call, the calls that were made before, and what its template
        is given besides.
        """
        size = self.extra_bytes + (0 if self.prompt is None else _size(self.prompt))
        for message in self.messages:
            size += _size(message.content)
            for call in message.tool_calls:
                size += _size(call.name) + _size(call.arguments)
        for text in self.inputs:
            size += _size(text)
        return size

    @property
    def requires(self) -> Extensions:
        """What an engine must do for it beyond the contract of its task."""
        return TOKEN_IDS if isinstance(self.prompt, tuple) else NO_EXTENSIONS

    def sample(self, index: int) -> ModelInput:
        """The input of one of the samples alone; a seed moves on with it, so that they differ."""
        if self.samples == 1:
            return self
        seed = self.parameters.get("seed")
        moved = {"seed": _seed_after(seed, index)} if isinstance(seed, int) else {}
        return replace(self, samples=1, parameters={**self.parameters, **moved})


def _seed_after(seed: int, steps: int) -> int:
    """Another seed; none becomes the random one that way, and that one stays what it is."""
    if seed == RANDOM_SEED:
        return seed
    moved = seed + steps
    return moved + 1 if seed < RANDOM_SEED <= moved else moved


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that was written, its natural log probability, and the likeliest in its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One continuation as a whole."""

    text: str
    finish_reason: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote for one item; `others` are the samples beyond the first."""

    text: str
    finish_reason: str
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[Choice, ...] = ()

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All samples, in the order in which they were asked for."""
        return (Choice(self.text, self.finish_reason, self.logprobs), *self.others)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector for each input, as little-endian 32-bit floats."""

    vectors: tuple[bytes, ...]
    usage: Usage


Result = Completion | Embeddings


@dataclass(frozen=True, slots=True)
class Delta:
    """What one response of a generation under way adds.

    `completion_tokens` and `logprobs` are those of this delta; `prompt_tokens` those of the
    prompt, once the engine has told (0 before), `cached_tokens` how many of them its prefix cache
    held (None if it does not tell). `finish_reason` comes with the last delta.
    """

    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None
    cached_tokens: int | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


def _size(text: TextOrTokens) -> int:
    if not isinstance(text, str):
        return 4 * len(text)
    # That a text is ASCII is known of it: it need not be encoded to be measured.
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
