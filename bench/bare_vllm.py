"""vLLM alone, in the worker's image: no Triton, no Synapse, the same settings.

Orders and answers are those of `bench/bare_engine.py`; the argument is a `model.json`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


async def main(settings: Path) -> None:
    # What vLLM says goes to standard error: standard output is for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # At its import it speaks already; only the worker's image has it.
    from vllm import AsyncEngineArgs  # type: ignore[import-not-found]
    from vllm.v1.engine.async_llm import AsyncLLM  # type: ignore[import-not-found]

    arguments = AsyncEngineArgs(**json.loads(settings.read_text(encoding="utf-8")))
    engine = AsyncLLM.from_engine_args(arguments)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    number = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        started = time.perf_counter()
        runs = [
            _run(engine, prompt, order["tokens"], f"{number}-{each}")
            for each, prompt in enumerate(order["prompts"])
        ]
        streams = await asyncio.gather(*runs)
        answer = {
            "seconds": time.perf_counter() - started,
            "tokens": sum(written for _, _, written in streams),
            "streams": [(a - started, b - started, written) for a, b, written in streams],
        }
        print(json.dumps(answer), file=answers, flush=True)
        number += 1


async def _run(engine: Any, prompt: str, tokens: int, name: str) -> tuple[float, float, int]:
    """Generate exactly `tokens` tokens: when the first and last came, and how many there were."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    came: list[float] = []
    written = 0
    async for output in engine.generate(prompt, parameters, name):
        written = len(output.outputs[0].token_ids)
        came.append(time.perf_counter())
    return came[0], came[-1], written


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
