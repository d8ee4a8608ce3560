"""The log of one machine: a line for each record, with what it is about."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

OURS = frozenset({"synapse", "synapse_server", "synapse_worker"})
"""The packages of our loggers: what others say besides is their own business."""

KNOWN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""What every record has. The rest is what ours are about: a job, a batch, a request."""


class LineFormatter(logging.Formatter):
    """Writes what a record is about behind its text, as `job=…`: the text alone names none."""

    def __init__(self) -> None:
        super().__init__(FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, before any traceback."""
        line = super().formatMessage(record)
        if record.name.partition(".")[0] not in OURS:
            return line
        about = (
            f"{name}={_told(value)}" for name, value in vars(record).items() if name not in KNOWN
        )
        return " ".join((line, *about))


def log_from(level: str) -> None:
    """Log to standard error from that level on, and who was let in or given a key at every one."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("synapse.audit").setLevel(logging.INFO)


def _told(value: object) -> str:
    """A value in one word, or as Python writes it: nothing in it begins a line of its own."""
    text = str(value)
    is_word = text.isprintable() and not any(map(str.isspace, text))
    return text if isinstance(value, str) and is_word and text else repr(value)
