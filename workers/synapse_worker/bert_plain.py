"""BERT encoders in standard operators only: for compilers that know none of ONNX Runtime's own.

TensorRT, say, finds its own fusions; what it is given must be the plain mathematics.
"""

import numpy as np

from synapse_worker.bert import INPUT_IDS, LENGTHS, Encoder

INT64_CAST = 7
MASKED = -1e4
"""Added to what no token may look at; still a number in 16 bits."""


class PlainEncoder(Encoder):
    """The same inputs and outputs as those of the fused graph."""

    def _embedded(self) -> str:
        graph = self._graph
        positions = self._tensor("embeddings.position_embeddings.weight")
        positions = positions + self._tensor("embeddings.token_type_embeddings.weight")[0]
        words = self._weight("embeddings.word_embeddings.weight")
        read = graph.node("Gather", [words, INPUT_IDS], axis=0)
        numbers = self._numbers()
        placed = graph.node("Gather", [graph.weight("positions", positions), numbers], axis=0)
        # A mask for all layers: rows × 1 × 1 × tokens, 0 or far below.
        lengths = graph.node("Cast", [LENGTHS], to=INT64_CAST)
        each = graph.node("Unsqueeze", [lengths, self._axes("rows", [1])])
        present = graph.node("Less", [numbers, each])
        absent = graph.weight("absent", np.array(MASKED, np.float32))
        mask = graph.node("Where", [present, graph.weight("zero", np.zeros(1, np.float32)), absent])
        self._mask = graph.node("Unsqueeze", [mask, self._axes("heads_and_queries", [1, 2])])
        return self._normed("embeddings.", graph.node("Add", [read, placed]))

    def _attended(self, name: str, hidden: str) -> str:
        graph, size, heads = self._graph, self._config.hidden, self._config.heads
        weights, biases = self._query_key_value(name)
        # The scale of the scores goes into the queries.
        weights[:, :size] /= np.sqrt(size // heads)
        biases[:size] /= np.sqrt(size // heads)
        split = graph.weight(f"{name}split", np.array([0, 0, heads, size // heads]))
        parts = []
        for at, order in enumerate([(0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)]):
            part = slice(at * size, (at + 1) * size)
            weight = graph.weight(f"{name}weight{at}", np.ascontiguousarray(weights[:, part]))
            bias = graph.weight(f"{name}bias{at}", np.ascontiguousarray(biases[part]))
            value = graph.node("Add", [graph.node("MatMul", [hidden, weight]), bias])
            parts.append(
                graph.node("Transpose", [graph.node("Reshape", [value, split])], perm=order)
            )
        query, key, value = parts
        scores = graph.node("Add", [graph.node("MatMul", [query, key]), self._mask])
        seen = graph.node("MatMul", [graph.node("Softmax", [scores], axis=-1), value])
        joined = graph.weight(f"{name}join", np.array([0, 0, size]))
        return graph.node("Reshape", [graph.node("Transpose", [seen], perm=[0, 2, 1, 3]), joined])

    def _gelu(self, value: str, bias: str) -> str:
        graph = self._graph
        value = graph.node("Add", [value, bias])
        root, one, half = (
            graph.weight(f"{value}{name}", np.array(number, np.float32))
            for name, number in (("root", np.sqrt(0.5)), ("one", 1.0), ("half", 0.5))
        )
        error = graph.node("Erf", [graph.node("Mul", [value, root])])
        share = graph.node("Mul", [graph.node("Add", [error, one]), half])
        return graph.node("Mul", [value, share])

    def _add_and_norm(self, name: str, value: str, skipped: str) -> str:
        graph = self._graph
        value = graph.node("Add", [value, self._weight(f"{name}dense.bias")])
        return self._normed(name, graph.node("Add", [value, skipped]))

    def _normed(self, name: str, value: str) -> str:
        parts = [self._weight(f"{name}LayerNorm.{part}") for part in ("weight", "bias")]
        epsilon = self._config.epsilon
        return self._graph.node("LayerNormalization", [value, *parts], axis=-1, epsilon=epsilon)

    def _numbers(self) -> str:
        """The places of the tokens: 0, 1, … as many as the longest text has."""
        graph = self._graph
        shape = graph.node("Shape", [INPUT_IDS])
        count = graph.node("Gather", [shape, graph.weight("second", np.array(1))], axis=0)
        start, step = graph.weight("first", np.array(0)), graph.weight("by_one", np.array(1))
        return graph.node("Range", [start, count, step])

    def _axes(self, name: str, axes: list[int]) -> str:
        return self._graph.weight(f"axes_{name}", np.array(axes, dtype=np.int64))
