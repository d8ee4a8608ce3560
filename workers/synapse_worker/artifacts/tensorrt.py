"""Sentence encoders for TensorRT: a plain graph, compiled by NVIDIA's `trtexec` for this GPU.

To be run where TensorRT and the GPU are: a plan is for one kind of GPU and one version of TensorRT,
which must be the version in the Triton that will load it.
"""

import shutil
import subprocess
from pathlib import Path

from synapse_worker.bert import EMBEDDING, INPUT_IDS, LENGTHS, WEIGHTS, BertConfig
from synapse_worker.bert_plain import PlainEncoder
from synapse_worker.errors import WorkerError

TOOL = "trtexec"
TOOL_FOLDER = Path("/usr/src/tensorrt/bin")
"""Where NVIDIA's containers have it, which is not on their PATH."""

TIMEOUT_S = 3600.0
SAID = 400

CONFIG = """\
name: "{name}"
platform: "tensorrt_plan"
max_batch_size: 0
input [
  {{ name: "{ids}" data_type: TYPE_INT32 dims: [ -1, -1 ] }},
  {{ name: "{lengths}" data_type: TYPE_INT32 dims: [ -1 ] }},
  {{ name: "{weights}" data_type: TYPE_FP32 dims: [ -1, 1, -1 ] }}
]
output [ {{ name: "{embedding}" data_type: TYPE_FP32 dims: [ -1, {hidden} ] }} ]
instance_group [ {{ kind: KIND_GPU count: 1 }} ]
"""


def prepare(folder: Path, name: str, to: Path, *, rows: int, tokens: int) -> Path:
    """Write a Triton model `name` under `to`: its configuration, and a plan in 16 bits.

    It takes up to `rows` texts of up to `tokens` tokens at once.

    Raises:
        WorkerError: TensorRT is not here, or refuses; or the model cannot be read or written.
    """
    tool = shutil.which(TOOL) or shutil.which(TOOL, path=str(TOOL_FOLDER))
    if tool is None:
        raise WorkerError(
            f"There is no {TOOL} on the PATH or in {TOOL_FOLDER}",
            "Run this in NVIDIA's TensorRT container of the same release as the Triton container",
        )
    config = BertConfig.read(folder)
    tokens = min(tokens, config.positions)
    version = to / name / "1"
    graph, plan = version / "model.onnx", version / "model.plan"
    words = {"ids": INPUT_IDS, "lengths": LENGTHS, "weights": WEIGHTS, "embedding": EMBEDDING}
    try:
        version.mkdir(parents=True, exist_ok=True)
        graph.write_bytes(PlainEncoder.of(folder, config).build())
        text = CONFIG.format(name=name, hidden=config.hidden, **words)
        (to / name / "config.pbtxt").write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkerError(f"{version} cannot be written: {error.strerror or error}") from error
    _compile(tool, graph, plan, rows, tokens)
    graph.unlink()
    return plan


def _compile(tool: str, graph: Path, plan: Path, rows: int, tokens: int) -> None:
    middle = (max(1, rows // 2), max(1, tokens // 4))
    arguments = [
        f"--onnx={graph}",
        f"--saveEngine={plan}",
        "--fp16",
        f"--minShapes={_shapes(1, 1)}",
        f"--optShapes={_shapes(*middle)}",
        f"--maxShapes={_shapes(rows, tokens)}",
        "--skipInference",
    ]
    try:
        done = subprocess.run(
            [tool, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkerError(f"{tool}: {error}") from error
    if done.returncode != 0 or not plan.is_file():
        said = (done.stderr.strip() or done.stdout.strip())[-SAID:]
        raise WorkerError(f"{tool} ended with {done.returncode} and made no plan: {said}")


def _shapes(rows: int, tokens: int) -> str:
    return f"{INPUT_IDS}:{rows}x{tokens},{LENGTHS}:{rows},{WEIGHTS}:{rows}x1x{tokens}"
