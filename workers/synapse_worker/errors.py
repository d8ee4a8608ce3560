"""What can go wrong with a worker, told as a cause and a remedy."""

from synapse_worker.path_text import printable


class WorkerError(Exception):
    """The worker cannot run; the text is one line: what happened, then what to do about it."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        """Keep cause and remedy apart so that a caller may show them apart."""
        self.cause = printable(cause)
        self.remedy = printable(remedy)
        super().__init__(f"{self.cause}. {self.remedy}" if remedy else self.cause)


class UnknownModel(WorkerError):
    """No repository and no store has such a model, or the worker has not loaded it."""


class TritonCrash(WorkerError):
    """Triton fell over by itself, and said nothing of why."""


class PortTaken(WorkerError):
    """Somebody else listens where Triton should."""


class InvalidRequest(ValueError):
    """The request itself is wrong: sending it again cannot help."""
