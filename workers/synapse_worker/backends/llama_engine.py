"""One in-process llama.cpp server: continuous batching over a fixed number of slots."""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

# How long OpenMP's threads spin before they sleep, at each of the hundreds of barriers of a token.
# The default of milliseconds is as fast on idle cores, and three times slower (ten with one
# caller) when anything else runs beside it, be it our own server. Read when the library is loaded.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"

import xllamacpp

from synapse_worker.backends.parameters import numbers, package_folders
from synapse_worker.cores import usable_cores
from synapse_worker.deltas import Delta, DeltaReader, merge
from synapse_worker.errors import InvalidRequest, WorkerError
from synapse_worker.gguf import check_whole, read_array, read_metadata
from synapse_worker.path_text import text_of
from synapse_worker.structured import why_not

SILENT, ERRORS_ONLY = 0, 1
"""How much the engine logs. Its errors repeat schemas and grammars whole, so a model that is served
is silent: callers are told what was wrong, and what it dies of is written past these levels."""

HTTP_THREADS = 1
CONSTRAINTS = ("json_schema", "grammar")
IRRESISTIBLE = 1000.0
CONTROL = 3
"""The kind of a token, in GGUF, that stands for no text."""

MAX_REMEMBERED_CONSTRAINTS = 256
PLACES = frozenset({"gguf_path", "gguf_package"})
FROM_ONE = frozenset({"slots", "context_per_slot", "batch_tokens", "micro_batch_tokens"})
"""Without one of these the engine would not start, or wait for ever."""

SETTINGS = PLACES | {
    "slots",
    "context_per_slot",
    "threads",
    "batch_tokens",
    "micro_batch_tokens",
    "idle_prompt_cache_mib",
    "gpu_layers",
}


@dataclass(frozen=True)
class EngineSettings:
    """How one model is run. Memory for the context is `slots` × `context_per_slot` tokens."""

    gguf: Path
    slots: int = 32
    context_per_slot: int = 2048
    threads: int = 0
    batch_tokens: int = 512
    micro_batch_tokens: int = 512
    idle_prompt_cache_mib: int = 256
    gpu_layers: int = 0

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read them from a model's configuration."""
        counts = numbers(parameters, SETTINGS, PLACES)
        for name in sorted(FROM_ONE & counts.keys()):
            if counts[name] < 1:
                raise WorkerError(f"{name} must be at least 1, not {counts[name]}", "Correct it")
        return cls(gguf=find_gguf(parameters), **counts)


def find_gguf(parameters: Mapping[str, str]) -> Path:
    """The model file: a path, or the only GGUF inside an installed package."""
    path = parameters.get("gguf_path")
    if path:
        if not Path(path).is_file():
            raise WorkerError(f"The model file {path} does not exist", "Correct gguf_path")
        return Path(path)
    package = parameters.get("gguf_package", "")
    files = [file for folder in package_folders(package) for file in sorted(folder.glob("*.gguf"))]
    if not files:
        raise WorkerError(
            f"No GGUF file in package {package!r}", "Install the package or set gguf_path"
        )
    return files[0]


class LlamaEngine:
    """Blocking calls, one thread each; the engine merges them into one batch a step."""

    def __init__(self, settings: EngineSettings) -> None:
        """Load the model and run it once: an engine that is not warm is not ready.

        Raises:
            WorkerError: its file is not there as a whole.
        """
        check_whole(settings.gguf)
        self._gguf = settings.gguf
        self._metadata = read_metadata(settings.gguf)
        self._server = _started(_common_params(settings))
        self._constraints_in_force: set[str] = set()
        self._first_text = ""
        self._run({"prompt": "Hello"})
        self._first_text = self._text_that_it_adds()

    def complete(self, request: Mapping[str, Any], on_piece: Callable[[str], bool]) -> None:
        """Stream a completion; `on_piece` gets JSON text and returns True to stop it.

        A text that begins with the token that the engine puts first is not given it twice: chat
        templates write it, and two of them change what the model answers.
        """
        prompt = request["prompt"]
        if isinstance(prompt, str):
            prompt = prompt.removeprefix(self._first_text)
        whole = {**request, "prompt": prompt, "stream": True}
        self._server.handle_completions(json.dumps(whole), on_piece)

    def check(self, request: Mapping[str, Any]) -> None:
        """Refuse what the engine would silently ignore."""
        if any(token >= self._vocabulary for token, _ in request.get("logit_bias", ())):
            raise InvalidRequest("'logit_bias' has ids that are not in the vocabulary")
        self._check_constraint(request)

    def _check_constraint(self, request: Mapping[str, Any]) -> None:
        """Refuse a schema or pattern the engine would ignore.

        LLGuidance prints an error for one it cannot compile and llama.cpp then generates freely.
        So each is tried once: a control token is made overwhelmingly likely, which no grammar
        allows; if it comes out, nothing constrains the output.
        """
        constraint = {name: request[name] for name in CONSTRAINTS if name in request}
        key = json.dumps(constraint)
        if not constraint or key in self._constraints_in_force:
            return
        bait = self._control_token
        if self._first_token({"prompt": "x", **_only(bait), **constraint}) == bait:
            raise InvalidRequest(why_not(constraint))
        if len(self._constraints_in_force) >= MAX_REMEMBERED_CONSTRAINTS:
            self._constraints_in_force.clear()
        self._constraints_in_force.add(key)

    @property
    def _vocabulary(self) -> int:
        """How many tokens there are: their ids are below it."""
        return int(self._metadata["tokenizer.ggml.tokens"])

    @cached_property
    def _control_token(self) -> int:
        """One that no grammar allows: not one that ends an answer, which many do at once.

        Some models begin a text with what ends an answer, or have nothing to begin one.
        """
        begin = self._metadata.get("tokenizer.ggml.bos_token_id")
        if begin is not None and self._goes_on_after(begin):
            return int(begin)
        kinds = read_array(self._gguf, "tokenizer.ggml.token_type")
        control = (token for token, kind in enumerate(kinds) if kind == CONTROL)
        end = int(self._metadata.get("tokenizer.ggml.eos_token_id", 0))
        return next((token for token in control if self._goes_on_after(token)), end)

    def _goes_on_after(self, token: int) -> bool:
        baited = self._run({"prompt": "x", **_only(token)})
        return baited.finish_reason == "length" and [t["id"] for t in baited.logprobs] == [token]

    def _text_that_it_adds(self) -> str:
        """How the token is written that the engine puts before every text; empty if it does not."""
        bos = self._metadata.get("tokenizer.ggml.bos_token_id")
        adds = self._metadata.get("tokenizer.ggml.add_bos_token")
        if bos is None or adds is False:
            return ""
        text = str(read_array(self._gguf, "tokenizer.ggml.tokens")[bos])
        if adds is None:
            # llama.cpp decides by the kind of the vocabulary then: it is seen from what it does.
            adds = self._run({"prompt": text}).prompt_tokens > 1
        return text if adds else ""

    def _first_token(self, request: Mapping[str, Any]) -> int | None:
        """The id of the first token of a completion; None when there is none."""
        logprobs = self._run(request).logprobs
        return logprobs[0]["id"] if logprobs else None

    def _run(self, request: Mapping[str, Any]) -> Delta:
        """A completion of one token."""
        pieces: list[str] = []

        def keep(piece: str) -> bool:
            pieces.append(piece)
            return False

        self.complete({**request, "max_tokens": 1, "logprobs": 1, "timings_per_token": True}, keep)
        reader = DeltaReader()
        return merge([reader.read(piece) for piece in pieces])


def _started(params: Any) -> Any:
    try:
        return xllamacpp.Server(params)
    except RuntimeError:  # once more, aloud: it says why in the log only
        params.verbosity = ERRORS_ONLY
        xllamacpp.Server(params)
        raise


def _only(token: int) -> dict[str, Any]:
    """What has the engine write this token, unless a grammar forbids it."""
    greedy = {"temperature": 0.0, "top_k": 1, "samplers": ["top_k"]}
    return {**greedy, "logit_bias": [[token, IRRESISTIBLE]]}


def _common_params(settings: EngineSettings) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = text_of(settings.gguf)
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context_per_slot
    # Penalties count all that a slot holds, as vLLM's do; a request may name no such "all".
    params.sampling.penalty_last_n = settings.context_per_slot
    params.n_batch = settings.batch_tokens
    params.n_ubatch = min(settings.micro_batch_tokens, settings.batch_tokens)
    params.n_gpu_layers = settings.gpu_layers
    threads = settings.threads or usable_cores()
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    # What a slot held goes here when it is given to another prompt, and comes back to any slot.
    params.cache_ram_mib = settings.idle_prompt_cache_mib
    params.verbosity = SILENT
    # xllamacpp always opens an HTTP port on the loopback; nobody knows this key, so nobody gets in.
    params.api_keys = [secrets.token_hex(32)]
    params.n_threads_http = HTTP_THREADS
    params.ui = False
    params.endpoint_slots = False
    return params
