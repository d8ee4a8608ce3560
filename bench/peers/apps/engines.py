"""The work itself, the same for every peer: the worker's engines, called from Python.

Run in the peers' environments, where nothing of Synapse but these engines is to be found. What is
served is told by the environment: `BENCH_WORKLOAD`, and where the models are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MAX_BATCH = 32
"""What a batch holds at most, for every peer that makes batches."""

BATCH_WAIT_S = 0.005
"""How long a peer waits for a batch to fill: between what their documentations use (1 to 10 ms)."""

TOKENS = 32
SLOTS = 32

Run = Callable[[Sequence[str]], list[Any]]


def workload() -> str:
    """What this process is to serve: noop, embed or generate."""
    return os.environ["BENCH_WORKLOAD"]


def load() -> Run:
    """Load the engine; what comes back takes texts and gives one answer for each."""
    name = workload()
    if name == "embed":
        return _embedder()
    if name == "generate":
        return _generator()
    return list


def _embedder() -> Run:
    from synapse_worker.embedder import Embedder, EmbedderSettings

    folder = os.environ["BENCH_EMBEDDER"]
    embedder = Embedder(EmbedderSettings.from_parameters({"model_path": folder}), _cores())

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
        return list(threads.map(one, texts))

    return run


def _cores() -> int:
    return len(os.sched_getaffinity(0))
