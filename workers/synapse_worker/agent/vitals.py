"""What is measured of a worker: its queue, its memory, its GPUs."""

import asyncio

from synapse_worker.agent.memory import Held, free_bytes, held_by
from synapse_worker.agent.readings import Readings
from synapse_worker.agent.triton_models import TritonModels
from synapse_worker.supervisor import Supervisor

QUIET_POLL_S = 0.1


class Vitals:
    """The last measurements. What nothing measures is None."""

    def __init__(self, supervisor: Supervisor, triton: TritonModels) -> None:
        """Nothing is measured yet."""
        self._supervisor = supervisor
        self._triton = triton
        self.clear()

    def clear(self) -> None:
        """Forget what was measured: Triton is gone."""
        self.readings = Readings()
        self._held: Held | None = None
        self._free_bytes: int | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something is known to wait or to be worked on."""
        return self.readings.queue_length + self.readings.running > 0

    @property
    def free_memory_bytes(self) -> int | None:
        """Of the GPUs, where there are any; else of this machine or container."""
        total, used = self.readings.gpu_memory_total_bytes, self.readings.gpu_memory_used_bytes
        return self._free_bytes if total is None or used is None else total - used

    async def measure(self) -> bool:
        """Measure all; False if Triton does not answer."""
        readings = await self._triton.readings() if self._triton.is_up else None
        self.readings = readings or Readings()
        self._held = self._look()
        self._free_bytes = free_bytes()
        return readings is not None

    @property
    def memory_bytes(self) -> int | None:
        """What Triton and its backends held."""
        return None if self._held is None else self._held.all_bytes

    def model_bytes(self, model: str) -> int:
        """What the processes of a loaded model held."""
        return 0 if self._held is None else self._held.of(model)

    def model_bytes_now(self, model: str) -> int:
        """What the processes of a loaded model hold now."""
        held = self._look()
        return 0 if held is None else held.of(model)

    def _look(self) -> Held | None:
        pid = self._supervisor.status.pid
        return None if pid is None else held_by(pid)

    async def wait_quiet(self) -> None:
        """Until the metrics have shown nothing twice: those who do not know yet may still come."""
        quiet = 0
        while quiet < 2 and self._triton.is_up:
            readings = await self._triton.readings()
            is_busy = readings is not None and readings.queue_length + readings.running > 0
            quiet = 0 if is_busy else quiet + 1
            await asyncio.sleep(QUIET_POLL_S)
