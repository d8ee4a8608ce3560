"""What an agent may refuse, told apart from what fails."""

from synapse_worker.errors import WorkerError


class NoRoom(WorkerError):
    """The model does not fit beside those that are in use or pinned."""


class TooLarge(WorkerError):
    """The model alone is larger than the memory budget: no waiting makes it fit."""


class NoAnswer(WorkerError):
    """Triton has not said what came of what it was asked for; it may come about yet."""


class NotNow(WorkerError):
    """The worker is not in a state for this; later it may be."""
