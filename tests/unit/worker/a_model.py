"""Files of models, made by the tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "vocab_size": 30,
    "layer_norm_eps": 1e-12,
}
POOLING = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
HIDDEN, INNER = CONFIG["hidden_size"], 4 * CONFIG["hidden_size"]


def safetensors(path: Path, header: dict[str, Any], data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def folder(
    root: Path, config: dict[str, Any] | None = None, pooling: dict[str, Any] | None = None
) -> Path:
    (root / "1_Pooling").mkdir()
    (root / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    (root / "1_Pooling" / "config.json").write_text(
        json.dumps(POOLING if pooling is None else pooling)
    )
    return root


def a_model(root: Path) -> Path:
    """The folder of an encoder of two tiny layers, its weights drawn by chance."""
    root.mkdir()
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (CONFIG["vocab_size"], HIDDEN),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        **dict.fromkeys([f"embeddings.LayerNorm.{part}" for part in ("weight", "bias")], (HIDDEN,)),
    }
    for number in range(CONFIG["num_hidden_layers"]):
        name = f"encoder.layer.{number}."
        sizes = {
            **{f"attention.self.{part}": (HIDDEN, HIDDEN) for part in ("query", "key", "value")},
            "attention.output.dense": (HIDDEN, HIDDEN),
            "intermediate.dense": (INNER, HIDDEN),
            "output.dense": (HIDDEN, INNER),
        }
        for part, size in sizes.items():
            shapes[f"{name}{part}.weight"], shapes[f"{name}{part}.bias"] = size, size[:1]
        for part in ("attention.output", "output"):
            shapes[f"{name}{part}.LayerNorm.weight"] = (HIDDEN,)
            shapes[f"{name}{part}.LayerNorm.bias"] = (HIDDEN,)
    chance, header, data = np.random.default_rng(1), dict[str, Any](), b""
    for tensor, shape in shapes.items():
        values = chance.standard_normal(shape).astype(np.float32).tobytes()
        header[tensor] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    # As its own writer does, so that the tensors are aligned.
    header["__metadata__"] = {"pad": ""}
    header["__metadata__"]["pad"] = "-" * (-len(json.dumps(header)) % 8)
    safetensors(root / "model.safetensors", header, data)
    return folder(root)
