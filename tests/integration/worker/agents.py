"""Workers with an agent, and small models for them."""

from pathlib import Path

import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from synapse_worker.agent import CacheLevel, Snapshot
from synapse_worker.config import BUNDLED_MODELS

NAMES = ("echo-a", "echo-b", "echo-c")

TELLS = """

class TritonPythonModel(TritonPythonModel):
    def execute(self, requests):
        import os, time

        open({mark!r}, "w").close()
        while os.path.exists({hold!r}):
            time.sleep(0.01)
        return super().execute(requests)
"""
"""Leaves a mark when it is given something to do, and is at it for as long as it is held."""


def echo_repository(root: Path, names: tuple[str, ...] = NAMES) -> Path:
    """A model repository with copies of echo under these names, which leave their `mark_of`."""
    source = BUNDLED_MODELS / "echo"
    for name in names:
        folder = root / name
        (folder / "1").mkdir(parents=True)
        config = (source / "config.pbtxt").read_text().replace('name: "echo"', f'name: "{name}"')
        (folder / "config.pbtxt").write_text(config)
        tells = TELLS.format(mark=str(mark_of(root, name)), hold=str(hold_of(root, name)))
        code = (source / "1" / "model.py").read_text() + tells
        (folder / "1" / "model.py").write_text(code)
    return root


def mark_of(root: Path, name: str) -> Path:
    """The file that is there once a model of the repository was given something to do."""
    return root.with_name(f"{root.name}-{name}-was-asked")


def hold_of(root: Path, name: str) -> Path:
    """The file that holds up a model of the repository for as long as it is there."""
    return root.with_name(f"{root.name}-{name}-is-held")


def loaded(snapshot: Snapshot) -> list[str]:
    """The names of the models that answer."""
    return [m.name for m in snapshot.models if m.level is CacheLevel.GPU_RESIDENT]


async def echo(client: InferenceServerClient, model: str, item: bytes = b"hello") -> bytes:
    """What a copy of echo answers."""
    made = InferInput("text_input", [1, 1], "BYTES")
    made.set_data_from_numpy(np.array([[item]], dtype=object))
    result = await client.infer(model, [made])
    return bytes(result.as_numpy("text_output")[0, 0])


async def ask(grpc_address: str, model: str, item: bytes = b"hello") -> bytes:
    """The same over a connection of its own."""
    async with InferenceServerClient(grpc_address) as client:
        return await echo(client, model, item)
