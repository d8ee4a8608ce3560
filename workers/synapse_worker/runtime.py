"""Finds the Triton server that a worker environment carries.

The `nvidia-pytriton` wheel ships the server binary, the Python backend and one backend stub per
Python version. Nothing of it is imported: the environment's own Python is asked where things are.
"""

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synapse_worker.errors import WorkerError

PROBE_TIMEOUT_S = 30
MACHINES = ("x86_64", "aarch64")
"""Those that the wheel is made for, with the same files for each."""

REINSTALL = "Delete that environment and make it again: `scripts/setup worker` in the checkout"
MAKE = "Name it (--worker-venv), or make it: `scripts/setup worker` in the checkout"

# Runs in the worker's Python, at every start of a worker: packages are only looked for. To import
# numpy takes longer than all the rest; the name of the folder beside it says the version as well.
PROBE = """
import importlib.util, json, os, sys, sysconfig
numpy_version = None
spec = importlib.util.find_spec("numpy")
if spec:
    beside = os.listdir(os.path.dirname(os.path.dirname(spec.origin)))
    known = [n for n in beside if n.startswith("numpy-") and n.endswith(".dist-info")]
    if len(known) == 1:
        numpy_version = known[0][len("numpy-"):-len(".dist-info")]
    else:
        import numpy
        numpy_version = numpy.__version__
spec = importlib.util.find_spec("pytriton")
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "library_dir": sysconfig.get_config_var("LIBDIR"),
    "library": sysconfig.get_config_var("INSTSONAME"),
    "numpy": numpy_version,
    "pytriton": list(spec.submodule_search_locations)[0] if spec else None,
}))
"""


@dataclass(frozen=True)
class TritonRuntime:
    """Paths of everything needed to run `tritonserver` with its Python backend."""

    python: Path
    python_version: str
    server: Path
    python_backend: Path
    stub: Path
    library_dirs: tuple[Path, ...]


def find_runtime(venv: Path) -> TritonRuntime:
    """Locate Triton inside a virtual environment, or say in one line what is missing."""
    python = venv / "bin" / "python"
    if not python.exists():
        raise WorkerError(f"The worker environment {venv} does not exist", MAKE)
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        raise WorkerError(
            f"Triton's wheel runs on Linux {' or '.join(MACHINES)} only, this is "
            f"{platform.system()} {platform.machine()}",
            "Use the worker container, or such a machine",
        )
    return runtime_from_facts(python, _probe(python))


def _probe(python: Path) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=True,
        )
        facts: dict[str, Any] = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().splitlines()[-1:] or ["no output"]
        raise WorkerError(f"{python} fails: {reason[0]}", REINSTALL) from error
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        raise WorkerError(f"{python} does not run: {error}", REINSTALL) from error
    return facts


def runtime_from_facts(python: Path, facts: Mapping[str, Any]) -> TritonRuntime:
    """Check what the probe saw and turn it into paths."""
    if facts["pytriton"] is None:
        raise WorkerError(f"{python} has no Triton (package nvidia-pytriton)", REINSTALL)
    root = Path(facts["pytriton"]) / "tritonserver"
    version = str(facts["version"])
    stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        shipped = sorted(path.name for path in (root / "python_backend_stubs").glob("3.*"))
        raise WorkerError(
            f"The worker environment has Python {version}, Triton supports "
            f"{', '.join(shipped) or 'none'}",
            "Make the worker environment with Python 3.11 or 3.12",
        )
    _check_numpy(facts["numpy"])
    server = root / "bin" / "tritonserver"
    if not server.exists():
        raise WorkerError(f"The Triton binary {server} is missing", REINSTALL)
    return TritonRuntime(
        python=python,
        python_version=version,
        server=server,
        python_backend=root / "backends" / "python",
        stub=stub,
        library_dirs=(
            *_libpython_dirs(facts["library_dir"], facts["library"], version),
            root.parent.parent / "nvidia_pytriton.libs",
        ),
    )


def _check_numpy(version: str | None) -> None:
    """Numpy 2 changed an ABI that the stub was built against: it misreads arrays, then dies."""
    if version is None:
        raise WorkerError("The worker environment has no numpy", REINSTALL)
    if int(version.split(".")[0]) >= 2:
        raise WorkerError(
            f"The worker environment has numpy {version}, Triton's stub needs numpy 1", REINSTALL
        )


def _libpython_dirs(library_dir: str | None, library: str | None, version: str) -> tuple[Path, ...]:
    """The folder that holds libpython, or none when the system's loader finds it by itself."""
    soname = f"libpython{version}.so.1.0"
    if library_dir and (Path(library_dir) / soname).exists():
        return (Path(library_dir),)
    listing = subprocess.run(
        ["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False
    ).stdout
    if soname in listing:
        return ()
    raise WorkerError(
        f"{soname} is not on this machine (the interpreter is linked against {library})",
        f"Install it, on Debian with `apt-get install libpython{version}`",
    )
