"""The GPUs of this machine: what there is, what is missing, and how busy they are."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

LEAST_MIB = 8 * 1024
"""Half of it is for the worker's engine and half for the bare one."""

SAMPLE_EVERY_MS = 500
BUSY_PERCENT = 70.0
NAMES = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
USE = (
    "nvidia-smi",
    "--id=0",
    "--query-gpu=utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
    f"--loop-ms={SAMPLE_EVERY_MS}",
)

Run = Callable[[Sequence[str]], str | None]
"""What a command says; None if there is no such command, or it fails."""


class Missing(Exception):
    """Something without which nothing can be measured: what, and what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}\n  remedy: {remedy}")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card."""

    name: str
    memory_mib: int
    driver: str


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of the last interval the card was at work, and how much of its memory is used."""

    at_s: float
    percent: float
    memory_mib: float


def said_by(command: Sequence[str]) -> str | None:
    """Run a command."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def gpu_of(run: Run = said_by) -> Gpu:
    """The first GPU, once it is sure that containers can be given it.

    Raises:
        Missing: there is none, it is too small, or there is no Docker that knows of GPUs.
    """
    gpus = gpus_in(run(NAMES) or "")
    if not gpus:
        raise Missing(
            "there is no NVIDIA GPU here: nvidia-smi is missing, or lists none",
            "run this on a machine with an NVIDIA GPU of 8 GiB or more, its driver, Docker and "
            "the NVIDIA Container Toolkit",
        )
    if gpus[0].memory_mib < LEAST_MIB:
        raise Missing(
            f"{gpus[0].name} has {gpus[0].memory_mib} MiB of memory, of which {LEAST_MIB} are "
            "needed: the worker's engine and the bare one stand side by side",
            "run this on a larger GPU",
        )
    runtimes = run(("docker", "info", "--format", "{{json .Runtimes}}"))
    if runtimes is None:
        raise Missing(
            "there is no Docker that this user may ask: the worker and vLLM come in its image",
            "install Docker with BuildKit and the NVIDIA Container Toolkit, and join the group "
            "docker",
        )
    if '"nvidia"' not in runtimes:
        raise Missing(
            "Docker cannot give containers a GPU",
            "install the NVIDIA Container Toolkit, then: "
            "nvidia-ctk runtime configure --runtime=docker && systemctl restart docker",
        )
    return gpus[0]


def gpus_in(text: str) -> list[Gpu]:
    """The GPUs that nvidia-smi lists; lines in another form, such as its warnings, are none."""
    gpus = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and (mib := parts[1].removesuffix("MiB").strip()).isdecimal():
            gpus.append(Gpu(parts[0], int(mib), parts[2]))
    return gpus


def sample_in(line: str, at_s: float) -> Sample | None:
    """One line of nvidia-smi's; None if it tells nothing, as "[N/A]" does."""
    try:
        percent, memory_mib = map(float, line.split(","))
    except ValueError:
        return None
    return Sample(at_s, percent, memory_mib)


@dataclass
class Samples:
    """What was seen so far; `at_s` counts from the first look."""

    seen: list[Sample] = field(default_factory=list)

    @property
    def mean_percent(self) -> float:
        """Of all samples.

        Raises:
            RuntimeError: there is none, so nothing can be said.
        """
        return sum(sample.percent for sample in self._some) / len(self._some)

    @property
    def busy_share(self) -> float:
        """The share of the samples in which the card was at work 70 % of the time or more."""
        return sum(sample.percent >= BUSY_PERCENT for sample in self._some) / len(self._some)

    @property
    def _some(self) -> Sequence[Sample]:
        if not self.seen:
            raise RuntimeError("nvidia-smi told no utilisation of this GPU")
        return self.seen


@contextlib.contextmanager
def sampled(command: Sequence[str] = USE) -> Iterator[Samples]:
    """Look at the GPU twice a second for as long as this lasts."""
    samples, started = Samples(), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            sample = sample_in(line, time.monotonic() - started)
            samples.seen.extend([sample] if sample else [])

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield samples
    finally:
        process.terminate()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
