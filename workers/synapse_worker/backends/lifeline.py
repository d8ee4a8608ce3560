"""Ends a backend process when Triton is gone.

The stub looks after its parent by itself, but only every few seconds and only while its own
threads cooperate; a killed Triton must not leave a process that holds a model in memory.
"""

import faulthandler
import fcntl
import os
import signal
import threading
import time

CHECK_INTERVAL_S = 0.5

STUCK_S = 300.0
"""Where nothing hangs up (`_end_at_hangup`): a call into Triton (of a metric, say) that Triton did
not live to answer keeps the interpreter to itself for ever, and with it the thread below. So long
after that the process ends all the same: longer than a model may take to load. Only there: this
goes by the clock, and would end a process that was stopped for so long (in a Lambda between two
calls, in a container that is paused) as it wakes up."""


def die_with_parent() -> None:
    """End this process once it has been orphaned, which it may be by now."""
    parent = int(os.environ.get("SYNAPSE_TRITON_PID") or os.getppid())
    watch = _watch if _end_at_hangup() else _watch_by_the_clock
    threading.Thread(target=watch, args=(parent,), name="lifeline", daemon=True).start()


def _end_at_hangup() -> bool:
    """Have the kernel end this process when the last writer of Triton's pipe is gone.

    False where there is no such pipe: Triton was started otherwise.

    Only Triton is to be one, so what a backend has inherited it closes. That needs no interpreter
    of ours; and unlike the parent-death signal it waits for the process, not for the thread of
    Triton's that happened to start this one.
    """
    inherited = os.environ.pop("SYNAPSE_LIFELINE", "")
    if not inherited:
        return False
    reading, writing = map(int, inherited.split(","))
    # A file of our own on that pipe: the one we have inherited is that of all backends, and a file
    # tells one process only.
    own = os.open(f"/proc/self/fd/{reading}", os.O_RDONLY | os.O_NONBLOCK)
    os.close(reading)
    os.close(writing)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    return True


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(CHECK_INTERVAL_S)
    os._exit(1)


def _watch_by_the_clock(parent: int) -> None:
    while os.getppid() == parent:
        # Its own thread needs no interpreter. Put off again and again while we have our turns.
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        time.sleep(CHECK_INTERVAL_S)
    os._exit(1)
