"""What a download may leave in the place of a model's file, told so that one can mend it."""

from pathlib import Path

from synapse_worker.errors import WorkerError

POINTER = b"version https://git-lfs.github.com/spec/"
"""How the text begins that Git has instead of a large file, where Git LFS has not brought it."""

AGAIN = "Wait until its download is done, or fetch it again"


def refuse_pointer(path: Path) -> None:
    """Refuse what only stands for a file.

    Raises:
        WorkerError: it does.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise WorkerError(f"{path} is only a pointer of Git LFS", "Run `git lfs pull` there")


def ends_early(path: Path, size: int, least: int) -> WorkerError:
    """A file that has less than the bytes it says it has, or than are needed to read how many."""
    return WorkerError(f"{path} ends early: it has {size} of {least} bytes", AGAIN)
