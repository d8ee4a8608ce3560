"""The work itself, the same for every peer: the worker's engines, called from Python.

Run in the peers' environments, where nothing of Synapse but these engines is to be found. What is
served is told by the environment: `BENCH_WORKLOAD`, and where the models are.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MAX_BATCH = 32
"""What a batch holds at most, for every peer that makes batches."""

BATCH_WAIT_S = 0.005
"""How long a peer waits for a batch to fill: between what their documentations use (1 to 10 ms)."""

TOKENS = 32
SLOTS = 32

PROCESSES = "BENCH_PROCESSES"
"""Overrides `processes`, to try what a peer does with another number."""

Run = Callable[[Sequence[str]], list[Any]]
RunOne = Callable[[str], Awaitable[Any]]


def workload() -> str:
    """What this process is to serve: noop, embed or generate."""
    return os.environ["BENCH_WORKLOAD"]


def processes() -> int:
    """How many processes share the work, of a peer that has several: one for each core.

    Generations have one, whatever is asked for: they share one engine that batches by itself.
    """
    return 1 if workload() == "generate" else int(os.environ.get(PROCESSES, _cores()))


def load(sharing: int = 1) -> Run:
    """Load the engine; what comes back takes texts and gives one answer for each.

    So many processes are `sharing` the cores: an embedder has its share of them as threads.
    """
    name = workload()
    if name == "embed":
        return _embedder(max(1, _cores() // sharing))
    if name == "generate":
        return _generator()
    return list


def load_one() -> RunOne:
    """Load an engine that batches by itself: what comes back takes one text, many times at once."""
    run = load()
    if workload() == "noop":

        async def answer(text: str) -> Any:
            return run([text])[0]

        return answer
    # asyncio's own pool has four threads more than there are cores; the engine has more slots.
    threads = ThreadPoolExecutor(SLOTS)

    async def answer_in_thread(text: str) -> Any:
        return (await asyncio.get_running_loop().run_in_executor(threads, run, [text]))[0]

    return answer_in_thread


def _embedder(threads: int) -> Run:
    from synapse_worker.embedder import Embedder, EmbedderSettings

    folder = os.environ["BENCH_EMBEDDER"]
    embedder = Embedder(EmbedderSettings.from_parameters({"model_path": folder}), threads)

    def run(texts: Sequence[str]) -> list[Any]:
        return [vector.tolist() for vector in embedder.embed(embedder.read_texts(texts))]

    return run


def _generator() -> Run:
    from synapse_worker.backends.llama_engine import EngineSettings, LlamaEngine

    gguf = os.environ["BENCH_GGUF"]
    engine = LlamaEngine(EngineSettings.from_parameters({"gguf_path": gguf, "slots": str(SLOTS)}))
    threads = ThreadPoolExecutor(SLOTS)

    def one(prompt: str) -> str:
        pieces: list[str] = []

        def read(piece: str) -> bool:
            pieces.extend(choice.get("text", "") for choice in json.loads(piece).get("choices", ()))
            return False

        engine.complete(
            {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True}, read
        )
        return "".join(pieces)

    def run(texts: Sequence[str]) -> list[Any]:
        # One text needs no second thread: the caller has one for it.
        return [one(texts[0])] if len(texts) == 1 else list(threads.map(one, texts))

    return run


def _cores() -> int:
    return len(os.sched_getaffinity(0))
