"""The figure of tuned plans: their levels, and how each stage brought them nearer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastdpm.core.history import log_snrs
from fastdpm.models.tuned import TunedPlan
from fastdpm.output.figures import save_figure, subplots

_TITLES = {
    "paths": "distance to the teacher's samples",
    "moments": "distance of feature moments",
}


def write_tuning(path: Path, plans: Sequence[TunedPlan]) -> None:
    """Draw the levels of plans, and their losses on fresh noises after each stage."""
    kinds = list(plans[0].record["stages"][0]["losses"])
    figure, axes = subplots(1, 1 + len(kinds), (4.2 * (1 + len(kinds)), 3.6))
    levels, *panels = axes[0]
    for row, tuned in enumerate(plans):
        log_snr = log_snrs(tuned.plan.level[:-1])
        levels.plot(log_snr, np.full(len(log_snr), row), "o-", markersize=5, linewidth=0.8)
    levels.set(xlabel="log-SNR / 2 of each row (left: noise)", ylabel="S", title="levels")
    levels.set_yticks(range(len(plans)), [str(tuned.num_steps) for tuned in plans])
    for panel, kind in zip(panels, kinds, strict=True):
        for tuned in plans:
            chosen = tuned.record.get("repeat", 0)
            stages = [s for s in tuned.record["stages"] if s.get("repeat", 0) == chosen]
            losses = [stage["losses"][kind] for stage in stages]
            panel.plot(
                [stage["stage"] for stage in stages], losses, "o-", label=f"S = {tuned.num_steps}"
            )
        panel.set(yscale="log", xlabel="after the stage", title=_TITLES[kind])
        panel.legend(fontsize="small")
    for panel in axes[0]:
        panel.grid(alpha=0.3, which="both")
    save_figure(figure, path)
