"""The real Lambda runtime without Docker: AWS's emulator of its interface, and its client."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import sysconfig
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.daemon import ROOT, running
from tests.patience import PATIENCE_S
from tests.ports import free_port

# What the managed Python runtime has beside the standard library.
RUNTIME_PACKAGES = (
    *("awslambdaric", "runtime_client*", "simplejson", "snapshot_restore_py"),
    *("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six.py", "urllib3"),
)
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Runtime:
    """One function in one environment, which takes one event at a time."""

    port: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def invoke(self, event: Any) -> Any:
        """What the function returned; an AssertionError tells of what it raised."""
        result = self.answer(event)
        assert not (isinstance(result, dict) and "errorType" in result), result
        return result

    def answer(self, event: Any) -> Any:
        """What the function returned, or what Lambda says of what it raised."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/2015-03-31/functions/function/invocations",
            data=json.dumps(event).encode(),
        )
        try:
            # A second event at the same time would crash the emulator.
            with self.lock, urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error


def runtime_packages(directory: Path) -> Path:
    """A folder with what the runtime brings and nothing else, so that a gap in a layer shows."""
    site = Path(sysconfig.get_path("purelib"))
    for pattern in RUNTIME_PACKAGES:
        for package in site.glob(pattern):
            (directory / package.name).symlink_to(package)
    return directory


@contextlib.contextmanager
def lambda_runtime(
    code: Path, path: Sequence[Path], env: Mapping[str, str], log: Path
) -> Iterator[Runtime]:
    """Run `code` as Lambda would, with `path` as its layers and the runtime's own packages."""
    command = [sys.executable, "-S", "-m", "awslambdaric", "handler.handler"]
    variables = {
        "PYTHONPATH": os.pathsep.join(map(str, (code, *path))),
        "AWS_LAMBDA_FUNCTION_NAME": code.name,
        "LAMBDA_TASK_ROOT": str(code),
        **env,
    }
    with lambda_container(command, variables, log) as runtime:
        yield runtime


@contextlib.contextmanager
def lambda_container(
    entry_point: Sequence[str], env: Mapping[str, str], log: Path
) -> Iterator[Runtime]:
    """Run the entry point of an image as Lambda would."""
    port, api_port = free_port(), free_port()
    command = [
        str(interface_emulator()),
        *("--log-level", "error"),
        *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
        *("--runtime-api-address", f"127.0.0.1:{api_port}"),
        *entry_point,
    ]
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_LAMBDA_FUNCTION_NAME": "function",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": f"{PATIENCE_S:.0f}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
        **env,
    }
    with running(command, environment, log) as daemon:
        runtime = Runtime(port)
        daemon.wait_until(lambda: _listens(port), PATIENCE_S)
        yield runtime


def interface_emulator() -> Path:
    """`aws-lambda-rie`, which the SAM CLI ships."""
    venv = ROOT / os.environ.get("SYNAPSE_SAM_VENV", ".venv-sam")
    name = f"aws-lambda-rie-{ARCHITECTURES[platform.machine()]}"
    found = list(venv.glob(f"lib/python3.*/site-packages/samcli/local/rapid/{name}"))
    if not found:
        raise RuntimeError(f"{venv} lacks {name}; run `make e2e`, which installs it")
    return found[0]


def _listens(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True
