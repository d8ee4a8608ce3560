"""Prepare a model for an accelerator: `python -m synapse_worker.artifacts onnx|tensorrt|neuron`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from synapse_worker.errors import WorkerError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when it is done, 1 with a one-line reason, 2 for bad arguments."""
    given = _parser().parse_args(arguments)
    try:
        done = given.work(given)
    except WorkerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{json.dumps(done, indent=2)}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m synapse_worker.artifacts", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="TARGET")

    def command(name: str, work: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        where = made.add_mutually_exclusive_group(required=True)
        where.add_argument("--model-path", default="", help="folder of a sentence encoder")
        where.add_argument("--model-package", default="", help="installed package that has one")
        made.add_argument("--to", type=Path, required=True, help="folder to write to")
        made.set_defaults(work=work)
        return made

    onnx = command("onnx", _onnx, "optimise for this processor, with ONNX Runtime")
    onnx.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    onnx.add_argument("--compare", action="store_true", help="measure it beside FP32")
    onnx.add_argument("--texts", type=Path, help="a text a line, whose vectors are compared")
    tensorrt = command("tensorrt", _tensorrt, "compile for this GPU, with TensorRT's trtexec")
    tensorrt.add_argument("--name", required=True, help="of the Triton model that is written")
    tensorrt.add_argument("--rows", type=int, default=32, help="texts at once, at most")
    tensorrt.add_argument("--tokens", type=int, default=512, help="tokens of a text, at most")
    command("neuron", _neuron, "compile for AWS Neuron cores, with neuronx-cc")
    return parser


def _folder(given: argparse.Namespace) -> Path:
    from synapse_worker.model_folder import find_folder

    return find_folder(given.model_path, given.model_package)


def _onnx(given: argparse.Namespace) -> dict[str, Any]:
    from synapse_worker.artifacts.comparison import compare
    from synapse_worker.artifacts.encoders import prepare
    from synapse_worker.embedder import EmbedderSettings

    folder = _folder(given)
    path = prepare(folder, given.precision, given.to)
    size = sum(each.stat().st_size for each in path.parent.glob(f"{given.precision}.*"))
    found = {"path": str(path), "bytes": size}
    if given.compare or given.texts:
        settings = EmbedderSettings(folder, given.precision, given.to)
        return {**found, **compare(settings, _texts(given.texts))}
    return found


def _texts(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WorkerError(f"{path} cannot be read: {error}") from error
    return [line for line in lines if line.strip()]


def _tensorrt(given: argparse.Namespace) -> dict[str, Any]:
    from synapse_worker.artifacts import tensorrt

    size = {"rows": given.rows, "tokens": given.tokens}
    return {"path": str(tensorrt.prepare(_folder(given), given.name, given.to, **size))}


def _neuron(given: argparse.Namespace) -> dict[str, Any]:
    from synapse_worker.artifacts import neuron

    return {"paths": [str(path) for path in neuron.prepare(_folder(given), given.to)]}


if __name__ == "__main__":
    sys.exit(main())
