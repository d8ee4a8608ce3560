"""Where a model's files are: a path, or the folder `model` of an installed package."""

from pathlib import Path

from synapse_worker.backends.parameters import package_folders
from synapse_worker.errors import WorkerError

MODEL_FOLDER = "model"
WEIGHTS = "model.safetensors"


def weights_file(folder: Path) -> Path:
    """A model's weights where they really lie: the folders of some downloaders hold links only."""
    return (folder / WEIGHTS).resolve()


def find_folder(path: str, package: str) -> Path:
    """The folder with the weights; a path goes before a package.

    Raises:
        WorkerError: they are not there.
    """
    folders = [folder / MODEL_FOLDER for folder in package_folders(package)]
    if path:
        folders = [Path(path)]
    for folder in folders:
        if (folder / WEIGHTS).is_file():
            return folder
    raise WorkerError(
        f"No {WEIGHTS} in {folders[0] if folders else f'package {package!r}'}",
        "Install the package or correct model_path",
    )
