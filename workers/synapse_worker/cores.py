"""How many cores an engine may use."""

import math
import os
from pathlib import Path

CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores this process may use, by affinity and by the container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CGROUP_CPU_LIMIT.read_text().split()
        return cores if quota == "max" else min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def cores_each(instances: int) -> int:
    """The cores of each of so many instances of a model beside each other; at least one."""
    return max(1, usable_cores() // instances)
