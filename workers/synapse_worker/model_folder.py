"""Where a model's files are: a path, or the folder `model` of an installed package."""

from pathlib import Path

from synapse_worker.backends.parameters import package_folders
from synapse_worker.errors import WorkerError

MODEL_FOLDER = "model"


def find_folder(path: str, package: str) -> Path:
    """The folder with the weights; a path goes before a package.

    Raises:
        WorkerError: they are not there.
    """
    folders = [folder / MODEL_FOLDER for folder in package_folders(package)]
    if path:
        folders = [Path(path)]
    for folder in folders:
        if (folder / "model.safetensors").is_file():
            return folder
    raise WorkerError(
        f"No model.safetensors in {folders[0] if folders else f'package {package!r}'}",
        "Install the package or correct model_path",
    )
