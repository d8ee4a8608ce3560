"""What becomes of work for a model that no worker can load."""

from __future__ import annotations

from dataclasses import dataclass

from synapse.domain.job import Failure
from synapse.domain.sweep import EXPIRED

LOAD_FAILED = "load_failed"


@dataclass(frozen=True, slots=True)
class FailedLoad:
    """Loads of a model fail, for `cause`; the next try is due in `again_in_s`, or `is_tried` now.

    One that is final fails however often it is tried: the model is larger than its workers.
    """

    cause: str
    is_final: bool = False
    again_in_s: float = 0.0
    is_tried: bool = False

    @property
    def is_due(self) -> bool:
        """Whether who waits for it now has it tried again."""
        return self.again_in_s <= 0 and not self.is_tried

    @property
    def is_off(self) -> bool:
        """Whether who waits for it waits in vain for now."""
        return self.again_in_s > 0 and not self.is_tried

    @property
    def failure(self) -> Failure:
        """How jobs end that wait for it, where it is final."""
        return Failure(LOAD_FAILED, f"the model cannot be loaded: {self.cause}")


def expired(failed: FailedLoad | None) -> Failure:
    """How a job ends whose time is up; `failed` is why its model is not loaded, if that is why."""
    if failed is None:
        return EXPIRED
    return Failure(EXPIRED.code, f"{EXPIRED.message}: its model is not loaded: {failed.cause}")
