"""The engine alone, in the worker's environment: no Triton, no Synapse, the same settings.

Reads a line of JSON `{"prompts": […], "tokens": n}` on standard input, runs all prompts at once
and answers with `{"seconds": s, "tokens": total}`; ends with its input.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from synapse_worker.backends.llama_engine import EngineSettings, LlamaEngine


def main(gguf_package: str) -> None:
    engine = LlamaEngine(EngineSettings.from_parameters({"gguf_package": gguf_package}))
    with ThreadPoolExecutor(EngineSettings.slots) as pool:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            started = time.perf_counter()
            tokens = [order["tokens"]] * len(order["prompts"])
            counts = list(pool.map(_run, [engine] * len(tokens), order["prompts"], tokens))
            answer = {"seconds": time.perf_counter() - started, "tokens": sum(counts)}
            print(json.dumps(answer), flush=True)


def _run(engine: LlamaEngine, prompt: str, tokens: int) -> int:
    """Generate exactly `tokens` tokens; returns how many the engine says it wrote."""
    written = 0

    def read(piece: str) -> bool:
        nonlocal written
        body = json.loads(piece)
        usage = body.get("usage")
        if usage:
            written = usage["completion_tokens"]
        return False

    engine.complete(
        {
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream_options": {"include_usage": True},
        },
        read,
    )
    return written


if __name__ == "__main__":
    main(sys.argv[1])
