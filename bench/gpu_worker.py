"""The containers that are measured: the worker (Triton and vLLM), and vLLM alone."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.engine_ratio import MODEL
from bench.gpu_machine import Missing

ROOT = Path(__file__).resolve().parents[1]
IMAGE = "synapse-bench:gpu"
WEIGHTS = "synapse-bench-weights:/var/cache/huggingface"
SHARE = 0.4
"""Of the GPU's memory for each of the two engines, which stand side by side."""

HTTP_PORT, GRPC_PORT = 26000, 26001
START_TIMEOUT_S = 1800.0
STREAMS = 128


@dataclass(frozen=True, slots=True)
class Worker:
    """A container with Triton and vLLM in it, at GRPC_PORT."""

    container: str

    def start_again(self) -> None:
        """End it, and start it with what it has compiled; returns at once."""
        docker("restart", self.container)


def docker(*arguments: str) -> str:
    """Run docker.

    Raises:
        Missing: it fails; what it says last is told.
    """
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Missing(
            f"docker {arguments[0]}: {''.join(last)}", "see what docker says, and mend it"
        )
    return done.stdout.strip()


def build_image() -> None:
    """Make the worker's image as it is here; vLLM and Triton are NVIDIA's (some 20 GB)."""
    build = ["docker", "build", "--file", "workers/Dockerfile", "--target", "gpu", "--tag", IMAGE]
    done = subprocess.run([*build, "."], cwd=ROOT, check=False)
    if done.returncode:
        raise Missing(
            "the worker's image could not be built", "see what docker said; it needs 40 GB of disk"
        )


def model_in(folder: Path) -> Path:
    """A copy of the GPU's model that takes its share of the memory, and as many streams as come."""
    source, model = ROOT / "workers/triton/models-gpu" / MODEL, folder / MODEL
    for file in source.rglob("*"):
        if file.is_file():
            place = model / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    settings = json.loads((model / "1/model.json").read_text(encoding="utf-8"))
    settings |= {"gpu_memory_utilization": SHARE, "max_num_seqs": STREAMS}
    (model / "1/model.json").write_text(json.dumps(settings), encoding="utf-8")
    for path in [folder, *folder.rglob("*")]:  # the container's user is another one
        path.chmod(0o755 if path.is_dir() else 0o644)
    return model


def pools() -> str:
    """The pools.toml of a server whose one worker is the container."""
    return (
        f'[[pool]]\nname = "gpu"\naccelerator = "gpu"\nmodels = ["{MODEL}"]\n'
        f'engine_url = "127.0.0.1:{GRPC_PORT}"\nextensions = ["priority"]\n'
        f"[pool.slots]\n{MODEL} = {STREAMS}\n"
    )


@contextlib.contextmanager
def worker(model: Path) -> Iterator[Worker]:
    """A new container, removed on leaving; it has only begun to start."""
    container = docker(
        *("run", "--detach", "--gpus", "device=0", "--shm-size", "2g"),
        *("--publish", f"127.0.0.1:{HTTP_PORT}:8000", "--publish", f"127.0.0.1:{GRPC_PORT}:8001"),
        *("--volume", WEIGHTS, "--volume", f"{model}:/models/{MODEL}:ro", IMAGE),
    )
    try:
        yield Worker(container)
    finally:
        docker("rm", "--force", container)


def wait_ready(started: Worker) -> None:
    """Return once Triton answers for the model.

    Raises:
        Missing: the container has ended, or is not ready in half an hour.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    address = f"http://127.0.0.1:{HTTP_PORT}/v2/models/{MODEL}/ready"
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        if docker("inspect", "--format", "{{.State.Running}}", started.container) != "true":
            break
        time.sleep(0.1)
    raise Missing(
        "the worker did not start", f"docker run --gpus all {IMAGE}, and see what it says"
    )


@contextlib.contextmanager
def bare_engine(model: Path) -> Iterator[subprocess.Popen[str]]:
    """VLLM alone, ready for orders (`bench.bare.ask`), ended on leaving."""
    name = f"synapse-bench-bare-{os.getpid()}"
    command: Sequence[str] = (
        *("docker", "run", "--rm", "--interactive", "--name", name),
        *("--gpus", "device=0", "--shm-size", "2g", "--volume", WEIGHTS),
        *("--volume", f"{model}:/model:ro", "--volume", f"{ROOT / 'bench'}:/bench:ro"),
        *("--entrypoint", "python3", IMAGE, "/bench/bare_vllm.py", "/model/1/model.json"),
    )
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        if "ready" not in process.stdout.readline():
            raise Missing("vLLM alone did not start", f"see what `{' '.join(command)}` says")
        yield process
    finally:
        process.kill()
        process.wait()
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
