"""`synapse cost`: what a month of traffic would cost on AWS, by design and service."""

from __future__ import annotations

import argparse
from typing import Any

from synapse.domain import reference
from synapse.domain.job import SlaTier


def add_cost_command(commands: Any) -> None:
    """Add `cost` to the commands."""
    text = "what traffic would cost on AWS in a month: here, and on what one would build instead"
    parser: argparse.ArgumentParser = commands.add_parser(
        "cost",
        help=text,
        description=text,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=_run)
    option = parser.add_argument
    option("--requests-per-day", type=float, required=True, metavar="N", help="how many")
    known = ", ".join(reference.TIMES)
    option("--model", default="rerank", help=f"of {known}; any name with --item-ms")
    option(
        "--item-ms",
        action="append",
        default=[],
        metavar="KIND=MS",
        help="what an item takes alone on a machine of this kind: cpu, gpu or neuron; repeatable",
    )
    option(
        "--lambda-gb",
        type=float,
        default=argparse.SUPPRESS,
        help="memory of a function with the model in itself (default: known of the model, or 10)",
    )
    option(
        "--prompt-kib", type=float, default=argparse.SUPPRESS, help="of a job (default: likewise)"
    )
    option(
        "--result-kib", type=float, default=argparse.SUPPRESS, help="of a job (default: likewise)"
    )
    option(
        "--results",
        choices=["later", "wait"],
        default="later",
        help="of jobs: each fetched once after the end, or waited for with GETs",
    )
    option("--tier", default="silver", choices=[str(tier) for tier in SlaTier], help="of all")
    option("--peak", type=float, default=2.0, help="the busiest time, in times of the mean")
    option("--busy-hours", type=float, default=24.0, help="of the day; in the others nobody asks")
    option("--idle-s", type=float, default=300.0, help="a pool without work is kept so long")
    option("--max-workers", type=int, default=20, help="of each pool")


def _run(arguments: argparse.Namespace) -> int:
    # Loading this takes longer than showing the help of all commands.
    from synapse_server.cost_table import cost_table

    print(cost_table(arguments))  # noqa: T201 - the command's own answer
    return 0
