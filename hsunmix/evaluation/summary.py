"""A benchmark in a few lines: how often, and by how much, refined maps beat coarse ones and other methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .benchmark import Cell, Score, cells, median, scene_kind
from .comparison import OURS, Row

# radians: with a smaller angle spectra are right, and there is nothing to compare
_EXACT = 1e-3


def as_markdown(scores: Sequence[Score], rows: Sequence[Row] = ()) -> str:
    """One line for each kind of scene and track: ratios of the medians of its cells (scene, track and noise level).

    Args:
        scores: of the pipeline.
        rows: of `comparison.rows`, other methods in the same cells; none when empty.

    Returns:
        Markdown; cells are counted whose ratio is above 1, or above 1.05 beside other methods. Of angles there are
        also the geometric means over the runs of a cell of the ratio of each: the medians may be those of two scenes.
    """
    others: dict[Cell, float] = {}
    for row in rows:
        if row.method != OURS:
            key = (row.scene, row.track, row.snr_db)
            others[key] = min(row.rmse, others.get(key, np.inf))
    kinds: dict[tuple[str, str], dict[Cell, list[Score]]] = {}
    for key, cell in cells(scores).items():
        kinds.setdefault((scene_kind(key[0]), key[1]), {})[key] = cell

    def refined(cell: list[Score]) -> float:
        return median(cell, "refined_rmse")

    lines = [
        "| scenes | track | cells | RMSE refined / coarse: median, largest | SAD refined / coarse | SAD, run by run | "
        "RMSE / best other method | in 90 % interval: median, range |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (kind, track), found in kinds.items():
        inside = [median(cell, "coverage") for cell in found.values()]
        entries = [
            kind,
            track,
            str(len(found)),
            _ratios(found, lambda _, cell: (refined(cell), median(cell, "coarse_rmse")), 1.0),
            _ratios(found, lambda _, cell: _angles(cell), 1.0),
            _ratios(found, lambda _, cell: _angles_run_by_run(cell), 1.0),
            _ratios(found, lambda key, cell: (refined(cell), others.get(key, np.nan)), 1.05),
            f"{np.median(inside):.0%}, {min(inside):.0%} to {max(inside):.0%}",
        ]
        lines.append("| " + " | ".join(entries) + " |")
    return "\n".join(lines)


def _ratios(
    found: dict[Cell, list[Score]], pair: Callable[[Cell, list[Score]], tuple[float, float]], limit: float
) -> str:
    """Median and largest ratio of a pair of numbers over the cells that have both."""
    pairs = np.array([pair(key, cell) for key, cell in found.items()])
    ratios = (pairs[:, 0] / pairs[:, 1])[np.isfinite(pairs[:, 1])]
    if not len(ratios):
        return ""
    above = int((ratios > limit).sum())
    return f"{np.median(ratios):.2f}, {ratios.max():.2f}" + (f" ({above} above {limit:g})" if above else "")


def _angles(cell: list[Score]) -> tuple[float, float]:
    coarse = median(cell, "coarse_sad")
    return median(cell, "refined_sad"), coarse if coarse > _EXACT else np.nan


def _angles_run_by_run(cell: list[Score]) -> tuple[float, float]:
    """Geometric mean of refined over coarse, and 1, which it compares to unless spectra were right from the start."""
    ratios = [max(one.refined_sad, _EXACT) / max(one.coarse_sad, _EXACT) for one in cell]
    return float(np.exp(np.log(ratios).mean())), 1.0 if median(cell, "coarse_sad") > _EXACT else np.nan
