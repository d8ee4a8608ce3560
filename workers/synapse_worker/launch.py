"""Becomes `tritonserver`, tied to the life of the process that started it.

Run by the worker's Python as a script, standard library only. What a parent cannot do safely
between fork and exec is done here, and exec keeps it: the parent-death signal, a lock that says
"these shared memory regions have a living owner" for as long as Triton or any of its backend stubs
(they inherit the descriptor) is alive, and a pipe into which nobody writes and which hangs up with
Triton.
"""

import ctypes
import fcntl
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """`launch.py PARENT_PID LOCK_FILE COMMAND…`: lock, bind to the parent, exec."""
    parent_pid, lock_file, command = int(arguments[0]), arguments[1], arguments[2:]
    lock = os.open(lock_file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    os.set_inheritable(lock, True)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above could take effect
        sys.exit("the supervisor is gone")
    # For its backends, one of which may start when Triton is no more (`backends/lifeline.py`).
    os.environ["SYNAPSE_TRITON_PID"] = str(os.getpid())
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    os.set_inheritable(writing, True)
    os.environ["SYNAPSE_LIFELINE"] = f"{reading},{writing}"
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
