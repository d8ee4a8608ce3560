"""A prepared encoder beside the one in FP32: how far its vectors turned, and what time it saves."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from synapse_worker.embedder import Embedder, EmbedderSettings, Tokens

SHAPES = ((1, 8), (1, 48), (16, 48), (8, 256))
"""Texts and tokens of each, whose time is taken."""

REPEATS = 7


def compare(settings: EmbedderSettings, texts: Sequence[str], threads: int = 1) -> dict[str, Any]:
    """The cosines between both vectors of each text, and the milliseconds of runs by shape.

    `nearest_kept` is the share of texts whose nearest neighbour among the others stays the same.

    Raises:
        WorkerError: one of the two cannot be loaded.
    """
    exact = Embedder(replace(settings, precision="fp32", artifacts=None), threads)
    other = Embedder(settings, threads)
    found: dict[str, Any] = {"precision": settings.precision, "texts": len(texts)}
    if texts:
        rows = [row[: exact.max_tokens] for row in exact.read_texts(texts)]
        true, near = exact.embed(rows), other.embed(rows)
        cosines = np.sum(true * near, axis=1)
        found["cosine_least"] = round(float(cosines.min()), 5)
        found["cosine_mean"] = round(float(cosines.mean()), 5)
        found["nearest_kept"] = round(float(np.mean(_nearest(true) == _nearest(near))), 4)
    found["ms"] = {
        f"{count}x{tokens}": {
            "fp32": _milliseconds(exact, _rows(count, tokens)),
            settings.precision: _milliseconds(other, _rows(count, tokens)),
        }
        for count, tokens in SHAPES
    }
    return found


def _nearest(vectors: Any) -> Any:
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -1)
    return np.argmax(likeness, axis=1)


def _rows(count: int, tokens: int) -> list[Tokens]:
    chance = np.random.default_rng(1)
    return [chance.integers(1000, 20000, tokens).astype(np.int32) for _ in range(count)]


def _milliseconds(embedder: Embedder, rows: Sequence[Tokens]) -> float:
    """The median of a few runs."""
    times = []
    embedder.embed(rows)
    for _ in range(REPEATS):
        began = time.perf_counter()
        embedder.embed(rows)
        times.append(time.perf_counter() - began)
    return round(1000 * sorted(times)[REPEATS // 2], 2)
