"""A log that cannot be read again: passed on, and its end kept."""

import os

import pytest

from synapse_worker import passed_log
from synapse_worker.passed_log import PassedLog


def passed_to(writes: int, text: bytes) -> PassedLog:
    with os.fdopen(writes, "wb") as log:
        passed = PassedLog(log)
    os.write(passed.entry, text)
    os.close(passed.entry)
    passed.wait_closed()
    return passed


def test_all_of_it_is_passed_on_and_its_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passed_log, "KEPT_BYTES", 8)
    reads, writes = os.pipe()

    passed = passed_to(writes, b"0123456789")

    assert os.read(reads, 100) == b"0123456789"
    assert os.read(reads, 100) == b"", "it is closed, since nobody writes any more"
    assert passed.end() == "23456789"
    os.close(reads)


def test_it_is_kept_though_nobody_reads_it_any_more() -> None:
    reads, writes = os.pipe()
    os.close(reads)

    assert passed_to(writes, b"why it failed").end() == "why it failed"
