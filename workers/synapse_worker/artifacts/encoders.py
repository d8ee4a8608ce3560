"""Sentence encoders as ONNX files: optimised for this machine, in FP32 or in eight bits."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime

from synapse_worker.bert import BertConfig, Encoder
from synapse_worker.bert_int8 import Int8Encoder
from synapse_worker.errors import WorkerError
from synapse_worker.model_folder import weights_file
from synapse_worker.path_text import text_of

PRECISIONS: Mapping[str, type[Encoder]] = {"fp32": Encoder, "int8": Int8Encoder}
PROVIDERS = ["CPUExecutionProvider"]
STAMP_FILE = "artifact.json"
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""ONNX Runtime's name for where the files lie that a model has its weights in."""

WRITTEN_WEIGHTS = "session.optimized_model_external_initializers_file_name"
WRITTEN_LEAST = "session.optimized_model_external_initializers_min_size_in_bytes"
WRITTEN_LEAST_BYTES = 1024
"""Smaller weights stay in the graph."""

INSTRUCTIONS = frozenset(
    {
        *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "amx_bf16"),
        *("asimddp", "i8mm", "sve", "bf16"),
    }
)
"""Of x86 and of Arm: those that ONNX Runtime has kernels for."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model file by its bytes or its path; `beside` is the folder of what it leaves in files."""

    model: bytes | str
    beside: Path


def prepare(folder: Path, precision: str, to: Path) -> Path:
    """Write the encoder of a model's folder, as ONNX Runtime optimises it for this machine.

    It is two files, of which the graph is returned; the other, beside it, has the weights.

    Raises:
        WorkerError: the model cannot be read, or the file not be written.
    """
    config = BertConfig.read(folder)
    graph, weights = f"{precision}.onnx", f"{precision}.weights"
    options = _options(threads=1)
    # Weights in a file of their own are mapped when a worker starts, not read and copied.
    options.add_session_config_entry(WRITTEN_WEIGHTS, weights)
    options.add_session_config_entry(WRITTEN_LEAST, str(WRITTEN_LEAST_BYTES))
    # It warns that the file is for this machine, which is why the stamp says which.
    options.log_severity_level = 3
    try:
        to.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=to) as draft:
            # Its last level also fits the file to the instructions that this processor has.
            options.optimized_model_filepath = text_of(Path(draft, graph))
            written = PRECISIONS[precision].of(folder, config).build()
            onnxruntime.InferenceSession(written, options, PROVIDERS)
            # Moved, not written over: a worker may have mapped the one before.
            for name in (weights, graph):
                Path(draft, name).replace(to / name)
        stamps = {**_stamps(to), precision: _stamp(folder)}
        (to / STAMP_FILE).write_text(json.dumps(stamps, indent=2), encoding="utf-8")
    except OSError as error:
        raise WorkerError(f"{to} cannot be written: {error.strerror or error}") from error
    return to / graph


def encoder_source(
    folder: Path, config: BertConfig, precision: str, artifacts: Path | None
) -> Source:
    """What a session is made of: the path of what was prepared, or the graph as it is written now.

    Raises:
        WorkerError: the model cannot be read; or what was prepared is not for this model, on this
            machine, by this ONNX Runtime.
    """
    if artifacts is None:
        written = PRECISIONS[precision].of(folder, config, beside_weights=True).build()
        return Source(written, weights_file(folder).parent)
    path = artifacts / f"{precision}.onnx"
    stamp = _stamps(artifacts).get(precision)
    again = f"Run python -m synapse_worker.artifacts onnx --precision {precision} again here"
    if stamp is None or not path.is_file():
        raise WorkerError(f"{artifacts} has no encoder in {precision}", again)
    for key, value in _stamp(folder).items():
        if stamp.get(key) != value:
            raise WorkerError(
                f"{path} was prepared for {key} {stamp.get(key)!r}, this is {value!r}", again
            )
    return Source(text_of(path), artifacts)


def session(source: Source, threads: int) -> Any:
    """A session over an encoder."""
    options = _options(threads)
    options.add_session_config_entry(WEIGHTS_FOLDER, text_of(source.beside))
    return onnxruntime.InferenceSession(source.model, options, PROVIDERS)


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A thread that spins while it waits takes the core from whoever has work for it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _stamp(folder: Path) -> dict[str, object]:
    """What a file was prepared from, and for."""
    with weights_file(folder).open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "model": text_of(Path(folder.name)),
        "weights_sha256": weights,
        "onnxruntime": onnxruntime.__version__,
        "processor": _processor(),
    }


def _processor() -> str:
    """The kind of processor and what matters of its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    known = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return " ".join([machine(), *sorted(INSTRUCTIONS.intersection(known.split()))])


def _stamps(artifacts: Path) -> dict[str, Any]:
    try:
        found = json.loads((artifacts / STAMP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
