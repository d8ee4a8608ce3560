"""The engine alone, in the worker's environment: no Triton, no Synapse, the same settings.

Reads a line of JSON `{"prompts": […], "tokens": n}` on standard input, runs all prompts at once
and answers with `{"seconds": s, "tokens": total, "streams": [[first_s, last_s, tokens], …]}`: when
the first and the last piece of each came, from the start. Ends with its input.
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
            streams = list(pool.map(_run, [engine] * len(tokens), order["prompts"], tokens))
            answer = {
                "seconds": time.perf_counter() - started,
                "tokens": sum(written for _, _, written in streams),
                "streams": [(a - started, b - started, written) for a, b, written in streams],
            }
            print(json.dumps(answer), flush=True)


def _run(engine: LlamaEngine, prompt: str, tokens: int) -> tuple[float, float, int]:
    """Generate exactly `tokens` tokens: when the first and last came, and how many there were."""
    written = 0
    came: list[float] = []

    def read(piece: str) -> bool:
        nonlocal written
        body = json.loads(piece)
        if any(choice.get("text") for choice in body.get("choices", ())):
            came.append(time.perf_counter())
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
    return came[0], came[-1], written


if __name__ == "__main__":
    main(sys.argv[1])
