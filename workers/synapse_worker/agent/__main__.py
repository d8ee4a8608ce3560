"""Run a worker with its control API: `python -m synapse_worker.agent --models echo`."""

import asyncio
import logging
import sys
from collections.abc import Sequence

from synapse_worker.agent.agent import Agent
from synapse_worker.agent.arguments import parse
from synapse_worker.agent.config import AgentConfig
from synapse_worker.agent.serving import ControlConfig, ControlServer, serve
from synapse_worker.agent.snapshot import Snapshot
from synapse_worker.errors import WorkerError


async def run(config: AgentConfig, control: ControlConfig) -> str:
    """The worker's whole life; why it gave up, or nothing."""
    agent = Agent(config, on_change=_Reporter())
    server = ControlServer(agent, control)
    return await serve(agent, server)


class _Reporter:
    """Says every change of state once."""

    def __init__(self) -> None:
        self._told = ""

    def __call__(self, snapshot: Snapshot) -> None:
        models = ", ".join(model.name for model in snapshot.models if model.endpoint)
        parts = [snapshot.state, snapshot.detail, f"{models} on {snapshot.endpoint}" * bool(models)]
        text = ". ".join(filter(None, parts))
        if text != self._told:
            self._told = text
            _say(text)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m synapse_worker.agent`; 1 if the worker could not go on."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        given_up = asyncio.run(run(*parse(arguments)))
    except WorkerError as error:
        given_up = str(error)
    if given_up:
        _say(given_up)
    return 1 if given_up else 0


if __name__ == "__main__":
    sys.exit(main())
