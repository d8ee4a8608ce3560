"""What commands do where their answer cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from synapse_server.cli import main

CODE = "import sys; from synapse_server.cli import main; sys.exit(main(sys.argv[1:]))"


def ended(writes: int, *arguments: str) -> tuple[int, str]:
    """A command whose standard output is that; its exit code, and what it says besides."""
    with os.fdopen(writes, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", CODE, *arguments],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["cost", "list"])
def test_who_reads_only_the_beginning_gets_no_traceback(tmp_path: Path, command: str) -> None:
    """As with `| head`: nobody is there any more when the table is written."""
    place = ["--data-dir", str(tmp_path)]
    assert main(["keys", "create", "me", *place]) == 0
    reads, writes = os.pipe()
    os.close(reads)

    arguments = ["cost", "--requests-per-day", "9"] if command == "cost" else ["keys", "list"]

    assert ended(writes, *arguments, *(place if command == "list" else [])) == (0, "")


def test_a_key_that_nobody_has_seen_is_told_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is kept nowhere: who finds it in the list should not wait for it to be used."""
    place = ["--data-dir", str(tmp_path)]

    code, said = ended(os.open("/dev/full", os.O_WRONLY), "keys", "create", "me", *place)

    assert main(["keys", "list", *place]) == 0
    key = capsys.readouterr().out.splitlines()[1].split()[0]
    assert code == 1
    assert f"nobody has seen key {key}: it could not be written (No space left" in said
    assert "Traceback" not in said
