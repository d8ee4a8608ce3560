"""Triton's own vLLM backend with what it leaves out: a request's priority reaches the engine.

That backend (25.12, and on its main branch) calls `AsyncLLM.generate` without a priority, whatever
a request carries. Nothing of it is copied: its module is loaded from the image, and the name by
which it makes requests is given a class of ours around its own. vLLM heeds priorities where the
model's `model.json` has `"scheduling_policy": "priority"`: lower is scheduled first, and what runs
makes way where memory is short.

A `"model"` that begins with `./` is a folder beside `model.json`: weights that travel with it.

An engine that has died takes this process with it, so that it is seen and started again: by itself
the backend goes on without one, or, with ENABLE_VLLM_HEALTH_CHECK, unloads the model for good.
"""

import importlib.util
import json
import os
import sys
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

from synapse_worker.backends.parameters import request_priority
from synapse_worker.errors import WorkerError

ENGINE_DEAD = "EngineDeadError"
"""What vLLM's `generate` raises when its engine is no more, and from then on each time."""

DEAD_EXIT_CODE = 71

BACKEND = Path("/opt/tritonserver/backends/vllm")
"""Where NVIDIA's image has it."""


def prioritising(folder: Path = BACKEND) -> type:
    """The backend's `TritonPythonModel`, whose requests carry their priority to the engine.

    Raises:
        WorkerError: there is no such backend, or it is built otherwise than it was.
    """
    source = folder / "model.py"
    spec = importlib.util.spec_from_file_location("triton_vllm_backend", source)
    if spec is None or spec.loader is None or not source.is_file():
        raise WorkerError(f"There is no vLLM backend in {folder}", "Use NVIDIA's image with vLLM")
    # The backend's own modules are `utils.…`, beside it.
    sys.path.insert(0, str(folder))
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "GenerateRequest"):
        raise WorkerError(
            f"The vLLM backend in {folder} makes its requests in a way that is not known here",
            'Write `backend: "vllm"` in config.pbtxt and remove 1/model.py: priorities end then',
        )
    module.GenerateRequest = _prioritised(module.GenerateRequest)
    return _with_own_weights(module.TritonPythonModel)


def _with_own_weights(base: Any) -> type:
    class Model(base):  # type: ignore[misc] # its base is known at run time only
        """The backend's model, which finds weights in its own folder."""

        def initialize(self, args: dict[str, str]) -> None:
            folder = Path(args["model_repository"]) / args["model_version"]
            engine = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            if str(engine["model"]).startswith("./"):
                # The process is this model's alone, and vLLM's own processes begin where it is.
                os.chdir(folder)
            super().initialize(args)

    return Model


def _prioritised(base: Any) -> type:
    class PrioritisedRequest(base):  # type: ignore[misc] # its base is known at run time only
        """A request of the backend that is generated with its own priority."""

        def __init__(self, request: Any, generate: Any, *rest: Any) -> None:
            priority = request_priority(request.parameters())
            super().__init__(request, partial(_watched, generate, priority=priority), *rest)

    return PrioritisedRequest


async def _watched(generate: Any, *given: Any, **named: Any) -> AsyncGenerator[Any, None]:
    """What the engine writes; the process ends if that is no more."""
    try:
        async for output in generate(*given, **named):
            yield output
    except Exception as error:
        if type(error).__name__ == ENGINE_DEAD:
            sys.stderr.write("The engine of vLLM has died: its process is ended\n")
            sys.stderr.flush()
            os._exit(DEAD_EXIT_CODE)
        raise
