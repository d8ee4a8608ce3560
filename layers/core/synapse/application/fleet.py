"""The fleet as the use cases see it: wired once by each entry point, over its adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from synapse.application.call import Calls
from synapse.application.company import Companies
from synapse.application.fleet_engine import FleetEngine
from synapse.application.patience import Patience
from synapse.application.placement import Placement
from synapse.application.roster import FRESH_S, Roster
from synapse.application.routing import Routing
from synapse.application.vitals import Vitals
from synapse.application.windows import BronzeWindows
from synapse.ports import (
    Clock,
    InFlight,
    ProfileStore,
    Registry,
    StreamingEngine,
    WorkerRegistry,
)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Which pool (`routing`), which worker of it (`placement`), and the call itself (`engine`)."""

    roster: Roster
    vitals: Vitals
    windows: BronzeWindows
    routing: Routing
    placement: Placement
    engine: FleetEngine

    @classmethod
    def over(
        cls,
        engine: StreamingEngine,
        registry: Registry,
        workers: WorkerRegistry,
        profiles: ProfileStore,
        in_flight: InFlight,
        clock: Clock,
        *,
        fresh_s: float = FRESH_S,
        vitals: Vitals | None = None,
        patience: Patience | None = None,
    ) -> Self:
        """The fleet over these ports; `fresh_s` is how old what is known of workers may be."""
        vitals = vitals or Vitals()
        roster = Roster(workers, clock, fresh_s)
        roster.on_change = vitals.renew
        companies = Companies(registry, profiles, vitals, clock)
        windows = BronzeWindows(roster, in_flight, companies)
        routing = Routing(registry, roster, profiles, in_flight, vitals, clock, windows.seen)
        placement = Placement(roster, vitals)
        calls = Calls(vitals, profiles, patience)
        watched = FleetEngine(engine, calls)
        return cls(roster, vitals, windows, routing, placement, watched)
