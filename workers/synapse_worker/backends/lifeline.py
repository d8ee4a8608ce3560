"""Ends a backend process when Triton is gone.

The stub looks after its parent by itself, but only every few seconds and only while its own
threads cooperate; a killed Triton must not leave a process that holds a model in memory.
"""

import faulthandler
import os
import threading
import time

CHECK_INTERVAL_S = 0.5

STUCK_S = 300.0
"""A call into Triton (of a metric, say) that Triton did not live to answer keeps the interpreter to
itself for ever, and with it the thread below. So long after that the process ends all the same:
longer than a model may take to load."""


def die_with_parent() -> None:
    """Start a thread that ends this process once it has been orphaned, which it may be by now."""
    parent = int(os.environ.get("SYNAPSE_TRITON_PID") or os.getppid())
    threading.Thread(target=_watch, args=(parent,), name="lifeline", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        # Its own thread needs no interpreter. Put off again and again while we have our turns.
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        time.sleep(CHECK_INTERVAL_S)
    os._exit(1)
