"""Reads the reason out of Triton's log, for people who should not have to."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from synapse_worker.errors import PortTaken, TritonCrash, WorkerError

MAX_CAUSE_CHARS = 300
TRACEBACK = re.compile(r"(?:\n|\\n)+\s*At:(?:\n|\\n).*", re.S)
"""Where in Python it happened, which Triton puts behind an error; its log writes line ends out."""

CRASHES = frozenset({-signal.SIGABRT, -signal.SIGSEGV})
"""How a process ends that does itself in."""


@dataclass(frozen=True)
class Symptom:
    """A line to look for, how to say it and what to do (in both, groups of the pattern)."""

    pattern: re.Pattern[str]
    cause: str
    remedy: str
    kind: type[WorkerError] = WorkerError


SYMPTOMS: Sequence[Symptom] = (
    Symptom(
        re.compile(r"Socket '([^']+)' already in use"),
        r"\1 is already in use",
        "Stop what uses it or choose another port",
        PortTaken,
    ),
    Symptom(
        re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file"),
        r"The shared library \1 is missing",
        "Install its package, on Debian libgomp1 for libgomp and libpython3.N for libpython",
    ),
    Symptom(
        re.compile(r"No space left on device|Failed to initialize the shared memory|SIGBUS"),
        "There is no room left on the disk or in /dev/shm",
        "Free some; a container needs --shm-size=256m or more",
    ),
    Symptom(
        re.compile(r"Poll failed for model directory '([^']+)': .* for model '([^']+)', directory"),
        r"The config.pbtxt in the folder \1 says that the model is called \2",
        r'Write name: "\1" into it',
    ),
    Symptom(
        re.compile(r"Poll failed for model directory '([^']+)': (.+?)\"?$"),
        r"Triton could not read \1: \2",
        "See the log file",
    ),
    Symptom(
        re.compile(r"failed to load '([^']+)' version \d+: (?:\w+: )?(.+?)\"?$"),
        r"Triton could not load \1: \2",
        "See the log file",
    ),
    Symptom(
        re.compile(r"failed to load model '([^']+)': (?:at least one version.*?: )?(.+?)\"?$"),
        r"Triton could not load \1: \2",
        "See the log file",
    ),
    Symptom(  # which Triton waits for until it is ended
        re.compile(r"Failed to preinitialize Python stub: (.+)"),
        r"Triton could not load a model: \1",
        "See the log file",
    ),
    Symptom(re.compile(r"^(?:error|E\d{4} .*?\]): (.+)$"), r"Triton says: \1", "See the log file"),
)


def diagnose(log: str, exit_code: int | None, log_file: str) -> WorkerError:
    """The most telling line of the log; failing that, how the process ended.

    A TritonCrash if it fell over by itself and no line tells why, PortTaken if that is the reason.
    """
    lines = [TRACEBACK.sub("", line.strip()) for line in log.splitlines()]
    for symptom in SYMPTOMS:
        for line in lines:
            match = symptom.pattern.search(line)
            if match:
                cause = " ".join(match.expand(symptom.cause).split())[:MAX_CAUSE_CHARS]
                remedy = match.expand(symptom.remedy).replace("the log file", log_file)
                return symptom.kind(cause.rstrip(". "), remedy)
    kind = TritonCrash if exit_code in CRASHES else WorkerError
    return kind(_ending(exit_code), f"See {log_file}")


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "Triton did not become ready in time"
    if exit_code < 0:
        return f"Triton was killed by signal {-exit_code}"
    return f"Triton ended with exit code {exit_code}"
