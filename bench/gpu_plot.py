"""The picture of `bench.gpu`: how busy the GPU was, and tokens/s beside the bare engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from bench.gpu_machine import BUSY_PERCENT, Samples

if TYPE_CHECKING:
    from bench.gpu import Row


def draw(samples: Samples, rows: Sequence[Row], folder: Path, name: str) -> None:
    """Write `name`.svg and `name`.png into the folder."""
    # Text stays text, and the file the same for the same figures.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9})
    figure, (load, speed) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    load.plot([s.at_s for s in samples.seen], [s.percent for s in samples.seen], color="#2b6cb0")
    load.axhline(BUSY_PERCENT, color="#888888", linewidth=0.8)
    title = f"GPU at work: {samples.mean_percent:.0f} % in the mean"
    load.set(xlabel="s under load", ylabel="%", ylim=(0, 102), title=title)
    places = range(len(rows))
    speed.bar([p - 0.2 for p in places], [r.system for r in rows], 0.4, label="Synapse")
    speed.bar([p + 0.2 for p in places], [r.bare for r in rows], 0.4, label="vLLM alone")
    speed.set_xticks(places, [str(row.streams) for row in rows])
    speed.set(xlabel="streams at once", ylabel="tokens/s", title="Through the stack and without")
    speed.legend(frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=120)
    plt.close(figure)
