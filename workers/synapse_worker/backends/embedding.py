"""A Triton model that embeds texts: what Triton's batcher hands over is one batch.

Every request is answered for itself: one with a bad input is refused as a whole, by a message that
names the input, and spoils nothing for those it happened to be batched with.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from synapse_worker.backends.lifeline import die_with_parent
from synapse_worker.backends.parameters import model_parameters
from synapse_worker.cores import cores_each
from synapse_worker.embedder import Embedder, EmbedderSettings, Tokens
from synapse_worker.errors import InvalidRequest


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load and warm the model; raising here makes Triton refuse to serve it."""
        die_with_parent()
        config = json.loads(args["model_config"])
        parameters = model_parameters(config, folder=Path(args["model_repository"]))
        settings = EmbedderSettings.from_parameters(parameters)
        instances = sum(group["count"] for group in config["instance_group"])
        self._embedder = Embedder(settings, settings.threads or cores_each(instances))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order."""
        found = [self._read(request) for request in requests]
        good = [rows for rows in found if isinstance(rows, list)]
        try:
            vectors = self._embedder.embed([row for rows in good for row in rows])
        except Exception as error:  # noqa: BLE001 - told to the callers, who decide about a retry
            failure = _error(f"engine failed: {error}", pb_utils.TritonError.UNAVAILABLE)
            return [failure if isinstance(rows, list) else rows for rows in found]
        responses, start = [], 0
        for rows in found:
            if isinstance(rows, list):
                responses.append(_response(rows, vectors[start : start + len(rows)]))
                start += len(rows)
            else:
                responses.append(rows)
        return responses

    def _read(self, request: Any) -> list[Tokens] | Any:
        """The tokens of each of a request's inputs, or the response that refuses it."""
        try:
            rows = self._rows(request)
            for at, row in enumerate(rows):
                self._embedder.check(row, f"input.{at}")
        except InvalidRequest as error:
            return _error(f"invalid request: {error}", pb_utils.TritonError.INVALID_ARG)
        return rows

    def _rows(self, request: Any) -> list[Tokens]:
        texts = pb_utils.get_input_tensor_by_name(request, "text_input")
        ids = pb_utils.get_input_tensor_by_name(request, "input_ids")
        if (texts is None) == (ids is None):
            raise InvalidRequest("give either 'text_input' or 'input_ids'")
        if ids is not None:
            return [self._embedder.read_ids(row) for row in ids.as_numpy()]
        return self._embedder.read_texts(_texts(texts.as_numpy().reshape(-1)))


def _texts(items: Sequence[bytes]) -> list[str]:
    texts = []
    for at, item in enumerate(items):
        if not item:
            raise InvalidRequest(f"input.{at}: is empty")
        try:
            texts.append(item.decode())
        except UnicodeDecodeError:
            raise InvalidRequest(f"input.{at}: is not UTF-8") from None
    return texts


def _response(rows: Sequence[Tokens], vectors: Any) -> Any:
    counts = np.array([[len(row)] for row in rows], dtype=np.uint32)
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor("embedding", vectors), pb_utils.Tensor("num_input_tokens", counts)]
    )


def _error(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
