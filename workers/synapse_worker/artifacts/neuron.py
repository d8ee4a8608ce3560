"""Sentence encoders for AWS Neuron: traced for a few fixed shapes and compiled by neuronx-cc.

A Neuron core runs fixed shapes only, so there is a file for each number of texts and length, and
whoever serves them pads to the next. To be run on an instance with Neuron cores, in AWS's PyTorch
container for them.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synapse_worker.bert import BertConfig
from synapse_worker.errors import WorkerError

NEEDED = ("torch", "torch_neuronx", "transformers")
SHAPES = ((1, 32), (1, 128), (1, 512), (8, 32), (8, 128), (8, 512))
"""Texts and tokens of each."""


def prepare(folder: Path, to: Path, shapes: Sequence[tuple[int, int]] = SHAPES) -> list[Path]:
    """Write `<rows>x<tokens>.pt` for each shape: TorchScript with the compiled core in it.

    Each takes `input_ids` and `attention_mask`, INT64 [rows, tokens], and answers vectors of
    length one, FP32 [rows, hidden].

    Raises:
        WorkerError: Neuron's toolchain is not here, or the model cannot be read or written.
    """
    config = BertConfig.read(folder)
    torch, torch_neuronx, transformers = (_imported(name) for name in NEEDED)
    model = _encoder(torch, transformers.AutoModel.from_pretrained(str(folder))).eval()
    written = []
    try:
        to.mkdir(parents=True, exist_ok=True)
        for rows, tokens in shapes:
            if tokens > config.positions:
                continue
            ids = torch.zeros((rows, tokens), dtype=torch.long)
            traced = torch_neuronx.trace(model, (ids, torch.ones_like(ids)))
            path = to / f"{rows}x{tokens}.pt"
            torch.jit.save(traced, str(path))
            written.append(path)
    except OSError as error:
        raise WorkerError(f"{to} cannot be written: {error.strerror or error}") from error
    return written


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WorkerError(
            f"There is no {name} here",
            "Run this in AWS's PyTorch container for Neuron, on an instance with Neuron cores",
        ) from error


def _encoder(torch: Any, bert: Any) -> Any:
    """The mean over the tokens that are there, scaled to length one, as a module to trace."""

    class SentenceEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask)[0]
            present = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * present).sum(1) / present.sum(1).clamp(min=1)
            return torch.nn.functional.normalize(mean, dim=1)

    return SentenceEncoder()
