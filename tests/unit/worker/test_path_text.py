"""Paths that Python has taken for ASCII: each byte beyond it is half a surrogate pair."""

from pathlib import Path

import pytest

from synapse_worker.errors import WorkerError
from synapse_worker.path_text import path_of, printable, text_of

MISREAD = "/K\udcc3\udca4se/m.gguf"


@pytest.mark.parametrize("path", [Path(MISREAD), MISREAD, Path("/Käse/m.gguf"), "/Käse/m.gguf"])
def test_other_libraries_are_given_text(path: Path | str) -> None:
    assert text_of(path) == "/Käse/m.gguf"


def test_a_text_and_what_was_misread_of_it_are_the_same_path() -> None:
    assert path_of(MISREAD) == path_of("/Käse/m.gguf")


def test_people_are_told_of_paths_as_they_wrote_them() -> None:
    error = WorkerError(f"The model file {MISREAD} does not exist", f"Write {MISREAD}")

    assert str(error) == "The model file /Käse/m.gguf does not exist. Write /Käse/m.gguf"
    assert printable("half a pair \ud83d, a broken name \udcff") == (
        "half a pair \ud83d, a broken name \ufffd"
    )
