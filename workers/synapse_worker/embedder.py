"""Texts in, vectors out: a tokeniser and an ONNX session, and the batching between them.

Blocking and free of Triton, so that a benchmark can drive it bare.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Spreading a few sentences over threads costs more than reading them. Read at the first use.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer

from synapse_worker.artifacts.encoders import PRECISIONS, encoder_source, session
from synapse_worker.backends.parameters import numbers
from synapse_worker.bert import EMBEDDING, INPUT_IDS, LENGTHS, WEIGHTS, BertConfig
from synapse_worker.errors import InvalidRequest, WorkerError
from synapse_worker.model_folder import find_folder
from synapse_worker.path_text import text_of
from synapse_worker.runs import runs

NO_TOKEN = -1
TEXTS_INSTEAD = "; or send the text (LangChain: check_embedding_ctx_length=False)"
TEXTS = frozenset({"model_path", "model_package", "precision", "artifacts"})
SETTINGS = TEXTS | {"max_tokens", "run_tokens", "threads"}

Tokens = Sequence[int] | NDArray[np.int32]


@dataclass(frozen=True)
class EmbedderSettings:
    """How one model is run; `run_tokens` bounds the padded tokens of one run of the session.

    `artifacts` is a folder with what was prepared for this machine (`synapse_worker.artifacts`);
    without one the graph is written and optimised at each start.
    """

    folder: Path
    precision: str = "fp32"
    artifacts: Path | None = None
    max_tokens: int = 512
    run_tokens: int = 2048
    threads: int = 0

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read them from a model's configuration."""
        counts = numbers(parameters, SETTINGS, TEXTS)
        precision = parameters.get("precision", "fp32")
        if precision not in PRECISIONS:
            raise WorkerError(f"precision {precision!r}", f"Choose from {', '.join(PRECISIONS)}")
        artifacts = Path(parameters["artifacts"]) if parameters.get("artifacts") else None
        folder = find_folder(parameters.get("model_path", ""), parameters.get("model_package", ""))
        return cls(folder, precision, artifacts, **counts)


class Embedder:
    """One model in memory. Calls may come from several threads."""

    def __init__(self, settings: EmbedderSettings, threads: int) -> None:
        """Load the model and run it once: a model that is not warm is not ready."""
        config = BertConfig.read(settings.folder)
        self._settings = settings
        self._vocabulary = config.vocabulary
        self.max_tokens = min(settings.max_tokens, config.positions)
        self._tokenizer = _tokenizer(settings.folder / "tokenizer.json")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # What the tokeniser puts around every text.
        self._start, self._end = self._tokenizer.encode("").ids
        source = encoder_source(settings.folder, config, settings.precision, settings.artifacts)
        self._session = session(source, threads)
        self.dimensions = config.hidden
        self.embed(self.read_texts(["warm"]))

    def read_texts(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, with those that begin and end it."""
        return [found.ids for found in self._tokenizer.encode_batch_fast(list(texts))]

    def read_ids(self, ids: NDArray[np.int32]) -> Tokens:
        """A text that came as token ids, less what fills up its row."""
        found: NDArray[np.int32] = ids[ids != NO_TOKEN]
        return found

    def check(self, tokens: Tokens, name: str) -> None:
        """Refuse what cannot be embedded; `name` is what the message calls it.

        Raises:
            InvalidRequest: it is too long, or has ids that are not the model's own.
        """
        if isinstance(tokens, np.ndarray):
            self._check_ids(tokens, name)
        if len(tokens) > self.max_tokens:
            raise InvalidRequest(
                f"{name}: {len(tokens)} tokens are more than the model's maximum context length of "
                f"{self.max_tokens}"
            )

    def _check_ids(self, ids: NDArray[np.int32], name: str) -> None:
        """Refuse ids of another vocabulary: by their numbers, or as nothing frames them.

        Clients that take every server for OpenAI's send such ids, and would be given vectors of
        texts that nobody wrote.
        """
        strange = ids[(ids < 0) | (ids >= self._vocabulary)]
        if strange.size:
            raise InvalidRequest(
                f"{name}: {strange[0]} is no token id; they go from 0 to {self._vocabulary - 1}"
                f"{TEXTS_INSTEAD}"
            )
        if ids.size < 2 or (ids[0], ids[-1]) != (self._start, self._end):
            raise InvalidRequest(
                f"{name}: ids must be the model's own, from {self._start} to {self._end}"
                f"{TEXTS_INSTEAD}"
            )

    def embed(self, rows: Sequence[Tokens]) -> NDArray[np.float32]:
        """A vector of length one for each row, in order: FP32 [rows, dimensions]."""
        vectors = np.empty((len(rows), self.dimensions), dtype=np.float32)
        lengths = np.array([len(row) for row in rows], dtype=np.int32)
        for part in runs(lengths, self._settings.run_tokens):
            vectors[part] = self._run([rows[at] for at in part], lengths[part])
        return vectors

    def _run(self, rows: Sequence[Tokens], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        longest = int(lengths[-1])
        ids = np.zeros((len(rows), longest), dtype=np.int32)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
        present = np.arange(longest) < lengths[:, None]
        weights = (present / lengths[:, None]).astype(np.float32)
        inputs = {INPUT_IDS: ids, LENGTHS: lengths, WEIGHTS: weights[:, None, :]}
        vectors: NDArray[np.float32] = self._session.run([EMBEDDING], inputs)[0]
        return vectors


def _tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(text_of(path))
    except Exception as error:  # all that it raises
        raise WorkerError(f"{path} cannot be read: {error}", "Put the model's own there") from error
