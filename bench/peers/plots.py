"""The picture of the comparison: throughput by clients, and latency at the same load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.peers.measure import Measured
from bench.peers.report import OURS

COLOURS = ("#8c8c8c", "#d08770", "#a3be8c", "#b48ead", "#ebcb8b", "#81a1c1")
OUR_COLOURS = {"Synapse": "#0b3d91", "Synapse jobs": "#3f7fd9"}
TITLES = {"noop": "no-op", "embed": "MiniLM embeddings", "generate": "SmolLM2, 32 tokens"}


def draw(found: Mapping[str, Sequence[Measured]], folder: Path) -> None:
    """Write peers.svg and peers.png into the folder."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "peers", "font.size": 9})
    figure, rows = plt.subplots(2, len(found), figsize=(4 * len(found), 6.4), layout="constrained")
    for column, (workload, measured) in enumerate(found.items()):
        _throughput(rows[0][column], workload, measured)
        _latency(rows[1][column], measured)
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "peers.svg", metadata={"Date": None})
    figure.savefig(folder / "peers.png", dpi=120)
    plt.close(figure)


def _throughput(axes: Axes, workload: str, measured: Sequence[Measured]) -> None:
    for one, colour in _coloured(measured):
        counts = list(one.closed)
        rates = [one.closed[count].per_s for count in counts]
        width = 2.2 if one.peer in OURS else 1.2
        axes.plot(counts, rates, marker="o", ms=3, lw=width, color=colour, label=one.peer)
    axes.set(xscale="log", yscale="log", xlabel="clients", ylabel="answers/s")
    axes.set_title(TITLES[workload])


def _latency(axes: Axes, measured: Sequence[Measured]) -> None:
    told = [one for one in measured if one.at_equal_load]
    for at, (one, colour) in enumerate(_coloured(told)):
        point = one.at_equal_load["point"]
        if point.p50_ms is None:
            continue
        axes.barh(at, point.p99_ms, color=colour, alpha=0.45)
        axes.barh(at, point.p50_ms, color=colour)
    axes.set_yticks(range(len(told)), [one.peer for one in told], fontsize=8)
    axes.invert_yaxis()
    rate = told[0].at_equal_load["rate_per_s"] if told else 0.0
    axes.set(xscale="log", xlabel=f"ms at {rate:.1f}/s: p50 dark, p99 light")


def _coloured(measured: Sequence[Measured]) -> list[tuple[Measured, str]]:
    others = iter(COLOURS)
    return [(one, OUR_COLOURS.get(one.peer) or next(others)) for one in measured]
