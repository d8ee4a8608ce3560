"""BERT encoders as ONNX graphs: from a Hugging Face folder to sentence vectors in one run.

Written with ONNX Runtime's fused operators (attention, layer norms with their additions, GELU
with its bias), which its optimiser would otherwise have to find again, and with the pooling and
the scaling to length one inside, so that what leaves the engine is one vector for each text.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from synapse_worker.errors import WorkerError
from synapse_worker.model_folder import weights_file
from synapse_worker.onnx_graph import ElementType, Graph
from synapse_worker.safetensors import Place, read_tensors

FUSED = "com.microsoft"
MODULES = frozenset({"Transformer", "Pooling", "Normalize"})
"""Of sentence-transformers: all that is in the graph."""

INPUT_IDS, LENGTHS, WEIGHTS, EMBEDDING = "input_ids", "lengths", "weights", "embedding"


@dataclass(frozen=True)
class BertConfig:
    """The shape of an encoder, and the text lengths (in tokens) it is made for."""

    hidden: int
    layers: int
    heads: int
    positions: int
    vocabulary: int
    epsilon: float

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From `config.json`, and what sentence-transformers wrote beside it.

        Raises:
            WorkerError: it is missing, or describes something else than a plain BERT encoder
                with mean pooling.
        """
        found = _json(folder / "config.json")
        pooling = _json(folder / "1_Pooling" / "config.json")
        kind, activation = found.get("model_type"), found.get("hidden_act")
        if kind != "bert" or activation != "gelu":
            raise WorkerError(f"{folder}: a {kind!r} with {activation!r}; only BERT with gelu runs")
        if not _is_mean(pooling):
            raise WorkerError(f"{folder}: only pooling by the mean of the tokens is known")
        _check_modules(folder)
        return cls(
            hidden=found["hidden_size"],
            layers=found["num_hidden_layers"],
            heads=found["num_attention_heads"],
            positions=found["max_position_embeddings"],
            vocabulary=found["vocab_size"],
            epsilon=found["layer_norm_eps"],
        )


class Encoder:
    """The graph in FP32 with fused operators; others are made by writing its parts otherwise.

    Inputs: `input_ids` INT32 [rows, tokens], padded on the right; `lengths` INT32 [rows], tokens
    in each; `weights` FP32 [rows, 1, tokens], one over the length for each token, 0 for padding.
    Output: `embedding` FP32 [rows, hidden], each of length one.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        config: BertConfig,
        places: Mapping[str, Place] | None = None,
    ) -> None:
        self._tensors = tensors
        self._config = config
        self._places = places or {}
        self._graph = Graph("sentence-encoder")

    @classmethod
    def of(cls, folder: Path, config: BertConfig, *, beside_weights: bool = False) -> Self:
        """The encoder of a model's folder.

        One `beside_weights` leaves in their file those weights that are used as they lie there:
        it can be run only by an engine that is told the folder, and is there in a fifth of the time
        with half the memory, since nothing is copied. Else all is in the graph.

        Raises:
            WorkerError: its weights cannot be read.
        """
        found = read_tensors(weights_file(folder))
        return cls(found.values, config, found.places if beside_weights else None)

    def build(self) -> bytes:
        """The model file's bytes."""
        graph, config = self._graph, self._config
        graph.input(INPUT_IDS, ElementType.INT32, ["rows", "tokens"])
        graph.input(LENGTHS, ElementType.INT32, ["rows"])
        graph.input(WEIGHTS, ElementType.FLOAT32, ["rows", 1, "tokens"])
        hidden = self._embedded()
        for number in range(config.layers):
            hidden = self._layer(f"encoder.layer.{number}.", hidden)
        # The weighted sum over the tokens of each row is a product of matrices.
        mean = graph.node("MatMul", [WEIGHTS, hidden])
        axis = graph.weight("axis", np.array([1], dtype=np.int64))
        vector = graph.node("Squeeze", [mean, axis])
        graph.rename(graph.node("LpNormalization", [vector], axis=-1, p=2), EMBEDDING)
        graph.output(EMBEDDING, ElementType.FLOAT32, ["rows", config.hidden])
        return graph.model()

    def _embedded(self) -> str:
        positions = self._tensor("embeddings.position_embeddings.weight")
        # All of a text is its first segment, whose embedding is the same everywhere.
        positions = positions + self._tensor("embeddings.token_type_embeddings.weight")[0]
        return self._graph.node(
            "EmbedLayerNormalization",
            [
                INPUT_IDS,
                "",
                self._weight("embeddings.word_embeddings.weight"),
                self._graph.weight("positions", positions),
                "",
                self._weight("embeddings.LayerNorm.weight"),
                self._weight("embeddings.LayerNorm.bias"),
            ],
            domain=FUSED,
            unused_outputs=1,
            epsilon=self._config.epsilon,
        )

    def _layer(self, name: str, hidden: str) -> str:
        attended = self._attended(f"{name}attention.self.", hidden)
        projected = self._product(f"{name}attention.output.dense", attended)
        hidden = self._add_and_norm(f"{name}attention.output.", projected, hidden)
        inner = self._product(f"{name}intermediate.dense", hidden)
        inner = self._gelu(inner, self._weight(f"{name}intermediate.dense.bias"))
        outer = self._product(f"{name}output.dense", inner)
        return self._add_and_norm(f"{name}output.", outer, hidden)

    def _attended(self, name: str, hidden: str) -> str:
        weights, biases = self._query_key_value(name)
        graph = self._graph
        return graph.node(
            "Attention",
            [
                hidden,
                graph.weight(f"{name}weight", weights),
                graph.weight(f"{name}bias", biases),
                LENGTHS,
            ],
            domain=FUSED,
            num_heads=self._config.heads,
        )

    def _query_key_value(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The weights and biases of the three projections, side by side."""
        parts = [f"{name}{part}" for part in ("query", "key", "value")]
        weights = np.concatenate([self._tensor(f"{part}.weight").T for part in parts], axis=1)
        return weights, np.concatenate([self._tensor(f"{part}.bias") for part in parts])

    def _gelu(self, value: str, bias: str) -> str:
        return self._graph.node("BiasGelu", [value, bias], domain=FUSED)

    def _product(self, name: str, value: str) -> str:
        # They lie transposed in the file, which only ONNX Runtime's own operator can take.
        if (weight := f"{name}.weight") in self._places:
            inputs = [value, self._weight(weight)]
            return self._graph.node("FusedMatMul", inputs, domain=FUSED, transB=1)
        weight = self._graph.weight(weight, self._tensor(weight).T)
        return self._graph.node("MatMul", [value, weight])

    def _add_and_norm(self, name: str, value: str, skipped: str) -> str:
        parts = ("LayerNorm.weight", "LayerNorm.bias", "dense.bias")
        return self._graph.node(
            "SkipLayerNormalization",
            [value, skipped, *(self._weight(f"{name}{part}") for part in parts)],
            domain=FUSED,
            epsilon=self._config.epsilon,
        )

    def _weight(self, name: str) -> str:
        return self._graph.weight(name, self._tensor(name), self._places.get(name))

    def _tensor(self, name: str) -> NDArray[np.float32]:
        try:
            return np.asarray(self._tensors[name], dtype=np.float32)
        except KeyError:
            raise WorkerError(f"The model file has no tensor {name!r}") from None


def _is_mean(pooling: Mapping[str, Any]) -> bool:
    """Whether sentence-transformers would pool by the mean alone: a name, or once switches."""
    if "pooling_mode" in pooling:
        return bool(pooling["pooling_mode"] == "mean")
    modes = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on]
    return modes == ["pooling_mode_mean_tokens"]


def _check_modules(folder: Path) -> None:
    """Refuse a model that does more to a text than the graph would."""
    path = folder / "modules.json"
    if not path.is_file():
        return
    for module in _json(path):
        # By its last name: where the classes are has changed.
        kind = str(module.get("type")).rpartition(".")[2] if isinstance(module, dict) else module
        if kind not in MODULES:
            known = ", ".join(sorted(MODULES))
            raise WorkerError(f"{path}: it has a {kind!r}; only {known} are known")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkerError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise WorkerError(f"{path} cannot be read: {error}") from error
