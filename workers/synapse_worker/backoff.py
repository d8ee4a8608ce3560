"""When to start again, and when to stop trying. Pure: time and chance come from outside."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RestartPolicy:
    """Exponential backoff with full jitter, and a breaker against crash loops.

    More than `max_restarts` deaths within `window_s` open the breaker: something is wrong that
    another restart will not mend, and a worker that looks alive for seconds at a time does harm.
    """

    base_delay_s: float = 0.2
    max_delay_s: float = 15.0
    max_restarts: int = 5
    window_s: float = 120.0


@dataclass
class RestartBudget:
    """The deaths seen so far under a policy."""

    policy: RestartPolicy
    deaths: list[float] = field(default_factory=list)

    def delay_after_death(self, now_s: float, chance: Callable[[], float]) -> float | None:
        """Seconds to wait before the next start, or None when the breaker opens."""
        horizon = now_s - self.policy.window_s
        self.deaths = [death for death in self.deaths if death > horizon]
        self.deaths.append(now_s)
        if len(self.deaths) > self.policy.max_restarts:
            return None
        ceiling: float = self.policy.base_delay_s * 2 ** (len(self.deaths) - 1)
        return chance() * min(ceiling, self.policy.max_delay_s)
