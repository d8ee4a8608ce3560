"""BERT encoders in eight bits: the products of weights, which are nearly all of the work.

Weights have a scale for each column, fixed here. Activations have one for each token, taken as the
graph runs: a token's vector is divided by its largest part, so that the scale of what is quantised
is a constant and no text depends on those it is batched with (ONNX Runtime's own dynamic
quantisation has one scale for the whole batch, padding and all, and was less exact besides).

After a layer norm some dimensions are far larger than the others, and would leave those few steps.
How large follows from the norm's own weights, so each is scaled down by that, halfway, and the
weights that meet it up (what SmoothQuant does by examples).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_worker.bert import FUSED, LENGTHS, Encoder

STEPS = 127
MIDDLE = 128
SIGMAS = 2.5
"""A normed dimension seldom goes further from its middle than so many times its weight."""

SMALLEST = 1e-12


class Int8Encoder(Encoder):
    """The same inputs and outputs as those of FP32; attention itself and norms stay in FP32."""

    def _attended(self, name: str, hidden: str) -> str:
        graph, size = self._graph, self._config.hidden
        weights, biases = self._query_key_value(name)
        layer = int(name.split(".")[2])
        before = f"encoder.layer.{layer - 1}.output" if layer else "embeddings"
        product = self._quantised(f"{name}weight", hidden, weights, f"{before}.LayerNorm")
        last = graph.weight(f"{name}axis", np.array([-1]))
        bounds = [graph.weight(f"{name}bound{at}", np.array([at * size])) for at in range(4)]
        parts = [
            graph.node("Slice", [product, bounds[at], bounds[at + 1], last]) for at in range(3)
        ]
        return graph.node(
            "MultiHeadAttention",
            [*parts, graph.weight(f"{name}bias", biases), LENGTHS],
            domain=FUSED,
            num_heads=self._config.heads,
        )

    def _product(self, name: str, value: str) -> str:
        norm = ""
        if name.endswith("intermediate.dense"):
            norm = name.replace("intermediate.dense", "attention.output.LayerNorm")
        return self._quantised(name, value, self._tensor(f"{name}.weight").T, norm)

    def _quantised(self, name: str, value: str, weights: NDArray[np.float32], norm: str) -> str:
        """The product, of whole numbers; `norm` is the layer norm that `value` comes from."""
        graph = self._graph
        if norm:
            smooth = self._smoothing(norm, weights)
            value = graph.node("Mul", [value, graph.weight(f"{name}.smooth", smooth)])
            weights = weights / smooth[:, None]
        size = graph.node("ReduceMax", [graph.node("Abs", [value])], axes=[-1], keepdims=1)
        size = graph.node("Max", [size, self._constant(f"{name}.least", np.float32(SMALLEST))])
        scale = self._constant(f"{name}.step", np.float32(1 / STEPS))
        middle = self._constant(f"{name}.middle", np.uint8(MIDDLE))
        unit = graph.node("Div", [value, size])
        whole = graph.node("QuantizeLinear", [unit, scale, middle])
        steps = np.maximum(np.abs(weights).max(axis=0), SMALLEST).astype(np.float32) / STEPS
        product = graph.node(
            "MatMulIntegerToFloat",
            [
                whole,
                graph.weight(f"{name}.int8", np.round(weights / steps).astype(np.int8)),
                scale,
                graph.weight(f"{name}.steps", steps),
                middle,
                graph.weight(f"{name}.zeros", np.zeros(steps.shape, np.int8)),
            ],
            domain=FUSED,
        )
        return graph.node("Mul", [product, size])

    def _smoothing(self, norm: str, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """What each dimension is multiplied by: halfway between it and the weights it meets."""
        reach = SIGMAS * np.abs(self._tensor(f"{norm}.weight"))
        reach = np.maximum(reach + np.abs(self._tensor(f"{norm}.bias")), SMALLEST)
        met = np.maximum(np.abs(weights).max(axis=1), SMALLEST)
        found: NDArray[np.float32] = np.sqrt(met / reach).astype(np.float32)
        return found / np.float32(np.exp(np.log(found).mean()))

    def _constant(self, name: str, value: np.generic) -> str:
        made: NDArray[Any] = np.array(value)
        return self._graph.weight(name, made)
