"""Which time on the processor is told as whose."""

from __future__ import annotations

import os
import threading
import time

from bench.processor import first_thread_s, own_s

SPENT_S = 0.3


def spend() -> None:
    until = time.thread_time() + SPENT_S
    while time.thread_time() < until:
        pass


def test_what_other_threads_spend_is_the_process_s_and_not_the_first_thread_s() -> None:
    pid = os.getpid()
    of_process, of_first = own_s(pid), first_thread_s(pid)
    other = threading.Thread(target=spend)
    other.start()
    other.join()
    of_process, of_first = own_s(pid) - of_process, first_thread_s(pid) - of_first

    assert of_process >= 0.9 * SPENT_S
    assert of_first <= 0.5 * SPENT_S


def test_what_the_first_thread_spends_is_told() -> None:
    pid = os.getpid()
    before = first_thread_s(pid)
    spend()

    assert first_thread_s(pid) - before >= 0.9 * SPENT_S
