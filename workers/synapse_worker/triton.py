"""The command line and environment of one Triton process."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synapse_worker.config import WorkerConfig
from synapse_worker.errors import WorkerError
from synapse_worker.runtime import TritonRuntime, find_runtime
from synapse_worker.shared_memory import lock_file
from synapse_worker.staging import Stage, build_stage

CONTAINER_SERVER = Path("/opt/tritonserver/bin/tritonserver")
MODEL_PARAMETERS_VARIABLE = "SYNAPSE_MODEL_PARAMETERS"
LAUNCHER = Path(__file__).with_name("launch.py")
SHM_DEFAULT_BYTES = 4 * 1024 * 1024
HTTP_THREADS = 4
# Set by whoever runs us for their own Python; in the worker's they would only confuse it.
FOREIGN_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Ports:
    """The ports Triton listens on."""

    http: int
    grpc: int
    metrics: int


@dataclass(frozen=True)
class TritonProgram:
    """Everything about the program that stays the same from one start to the next."""

    config: WorkerConfig
    runtime: TritonRuntime | None
    stage: Stage

    def command(self, ports: Ports, region_prefix: str, parent_pid: int) -> list[str]:
        """The launcher's command line; the launcher becomes Triton."""
        python = self.runtime.python if self.runtime else Path(sys.executable)
        server = self.runtime.server if self.runtime else CONTAINER_SERVER
        return [
            # Without `site`: the launcher needs the standard library only, and is there sooner.
            *(str(python), "-I", "-S", str(LAUNCHER)),
            *(str(parent_pid), str(lock_file(region_prefix)), str(server)),
            *self._server_arguments(ports, region_prefix),
        ]

    def _server_arguments(self, ports: Ports, region_prefix: str) -> list[str]:
        host = self.config.host
        arguments = [
            f"--model-repository={self.stage.models}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in self.config.models),
            *(f"--http-address={host}", f"--http-port={ports.http}"),
            *(f"--grpc-address={host}", f"--grpc-port={ports.grpc}"),
            *(f"--metrics-address={host}", f"--metrics-port={ports.metrics}"),
            f"--http-thread-count={HTTP_THREADS}",
            f"--exit-timeout-secs={max(1, int(self.config.stop_timeout_s))}",
            f"--backend-config=python,shm-region-prefix-name={region_prefix}",
            f"--backend-config=python,shm-default-byte-size={SHM_DEFAULT_BYTES}",
        ]
        if self.runtime is not None:
            # Our configs are complete, and completing them would start every stub twice. The vLLM
            # backend in the container does need it.
            arguments.append("--disable-auto-complete-config")
            arguments.append(f"--backend-directory={self.stage.backends}")
        if not Path("/dev/nvidiactl").exists():
            arguments += ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]
        return [*arguments, *self.config.extra_arguments]

    def environment(self, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
        """The caller's environment, turned towards the worker's Python."""
        source = os.environ if inherited is None else inherited
        env = {key: value for key, value in source.items() if key not in FOREIGN_VARIABLES}
        env["PYTHONPATH"] = str(self.stage.python_path)
        env["PYTHONPYCACHEPREFIX"] = str(self.stage.root.parent / "pycache")
        env[MODEL_PARAMETERS_VARIABLE] = json.dumps(
            {name: dict(values) for name, values in self.config.model_parameters.items()}
        )
        if self.runtime is not None:
            bin_dir = self.runtime.python.parent
            env["VIRTUAL_ENV"] = str(bin_dir.parent)
            env["PATH"] = os.pathsep.join([str(bin_dir), source.get("PATH", os.defpath)])
            known = source.get("LD_LIBRARY_PATH")
            paths = [*map(str, self.runtime.library_dirs), *([known] if known else [])]
            env["LD_LIBRARY_PATH"] = os.pathsep.join(paths)
        return env


def prepare(config: WorkerConfig) -> TritonProgram:
    """Find Triton, check that it can run here, and lay out its folders."""
    if config.venv is None:
        if not CONTAINER_SERVER.exists():
            raise WorkerError(
                f"There is no Triton at {CONTAINER_SERVER}",
                "Name the worker environment, or run inside a Triton container",
            )
        runtime = None
    else:
        runtime = find_runtime(config.venv.absolute())
    return TritonProgram(config, runtime, build_stage(config, runtime))
