"""Curves of errors: over the steps of a training, over the noise of a benchmark, over the pixels that are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from .style import FAINT, PALETTE, new_figure

__all__ = ["plot_error_by_noise", "plot_error_by_scenes", "plot_sparsification", "plot_validation"]

_ERRORS = {"rmse": "abundance RMSE", "sad": "spectral angle (rad)"}
_STARTS = {"closed_form": "least squares", "moved": "closed-form step", "coarse": "start"}


def _quietest_first(levels: Iterable[float | None]) -> list[float | None]:
    """Different noise levels (dB), the clean cube first."""
    return sorted(set(levels), key=lambda level: -np.inf if level is None else -level)


def plot_error_by_noise(rows: Sequence[Any]) -> Any:
    """Abundance RMSE and spectral angle of several methods over the noise: a column for each scene and track.

    Args:
        rows: of `hsunmix.evaluation.comparison.rows`.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("`rows` is empty: nothing was measured.")
    groups = list(dict.fromkeys((row.scene, row.track) for row in rows))
    methods = sorted({row.method for row in rows}, key=lambda name: (name != "hsunmix", name))
    levels = _quietest_first(row.snr_db for row in rows)
    labels = ["clean" if level is None else f"{level:g}" for level in levels]
    figure = new_figure(1.2 + 3.0 * len(groups), 5.2)
    grid = figure.subplots(2, len(groups), squeeze=False, sharex=True)
    for column, (scene, track) in zip(grid.T, groups, strict=True):
        for axes, quantity in zip(column, ("rmse", "sad"), strict=True):
            for color, method in zip(cycle(PALETTE), methods, strict=False):
                cell = (scene, track, method)
                found = {
                    row.snr_db: getattr(row, quantity) for row in rows if (row.scene, row.track, row.method) == cell
                }
                values = [found.get(level, np.nan) for level in levels]
                width = 2.0 if method == "hsunmix" else 1.0
                axes.plot(labels, values, "o-", color=color, markersize=3, linewidth=width, label=method)
            axes.set_ylim(0, max(axes.get_ylim()[1], 0.01))  # what tables round to 0 is no difference
        column[0].set_title(f"{scene}, {track}", fontsize=9)
        column[1].set_xlabel("SNR (dB)")
    grid[0, 0].set_ylabel("abundance RMSE")
    grid[1, 0].set_ylabel("spectral angle (rad)")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8, frameon=False)
    return figure


def plot_sparsification(cells: Mapping[tuple[str, str, float | None], Sequence[Any]]) -> Any:
    """Error of the pixels that are left when the most uncertain ones are left out: a panel for each scene and track.

    Args:
        cells: of `hsunmix.evaluation.benchmark.cells`.

    Returns:
        A matplotlib figure; dotted is what leaving out the largest errors would give. Curves are means over the runs
        of a cell, in units of the error of all pixels.

    Raises:
        ValueError: no run has a curve.
    """
    panels: dict[tuple[str, str], dict[float | None, list[Any]]] = {}
    for (scene, track, level), runs in cells.items():
        curves = [run for run in runs if run.sparsification and run.sparsification[0] > 0]
        if curves:
            panels.setdefault((scene, track), {})[level] = curves
    if not panels:
        raise ValueError("`cells` have no curves: nothing was measured.")
    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure = new_figure(1.2 + 2.6 * columns, 0.8 + 2.4 * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    levels = _quietest_first(level for panel in panels.values() for level in panel)
    for axes, (name, panel) in zip(grid.flat, panels.items(), strict=False):
        for color, level in zip(cycle(PALETTE), levels, strict=False):
            for curve, style in (("sparsification", "-"), ("sparsification_oracle", ":")):
                values = [np.asarray(getattr(one, curve)) / getattr(one, curve)[0] for one in panel.get(level, ())]
                if values:
                    label = ("clean" if level is None else f"{level:g} dB") if style == "-" else None
                    share = np.linspace(0, 100, len(values[0]), endpoint=False)
                    axes.plot(share, np.mean(values, axis=0), style, color=color, label=label)
        axes.set_title(", ".join(name), fontsize=8)
    grid[0, 0].set_ylim(0, None)  # which all panels share
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("most uncertain pixels left out (%)", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("RMSE / that of all", fontsize=8)
    handles = {name: line for axes in grid.flat for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=len(handles),
        fontsize=8,
        frameon=False,
    )
    return figure


def plot_error_by_scenes(sizes: Sequence[Mapping[str, Any]]) -> Any:
    """Error on held-out materials over the number of training scenes, a curve for each size of a network.

    Args:
        sizes: `parameters`, `scenes` and `rmse`, one for each validation, and `closed_form_rmse`, of each size.

    Returns:
        A matplotlib figure.
    """
    figure = new_figure(4.6, 3.2)
    axes = figure.subplots()
    for color, size in zip(cycle(PALETTE), sizes, strict=False):
        label = f"{size['parameters'] / 1e6:.2f} million weights"
        axes.loglog(size["scenes"], size["rmse"], "o-", color=color, markersize=3, label=label)
    axes.axhline(sizes[0]["closed_form_rmse"], color=FAINT, linestyle="--", label="least squares")
    axes.set(xlabel="scenes seen", ylabel="abundance RMSE")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    axes.tick_params(labelsize=7, which="both")
    axes.legend(fontsize=7, frameon=False)
    return figure


def plot_validation(stages: Mapping[str, Sequence[Mapping[str, float]]]) -> Any:
    """Curves of the stages of a training, one panel each; grey lines are what the network starts from.

    Args:
        stages: for each stage the records of its `validation.jsonl`: `step`, and `rmse` or `sad` (radians) or both.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: a stage has no records.
    """
    empty = [name for name, records in stages.items() if not records]
    if empty or not stages:
        raise ValueError(f"`stages` has no records of {', '.join(empty) or 'any stage'}: train it first.")
    figure = new_figure(3.2 * len(stages), 2.8)
    for axes, (name, records) in zip(np.atleast_1d(figure.subplots(1, len(stages))), stages.items(), strict=True):
        quantity = next(key for key in _ERRORS if key in records[-1])
        steps = [record["step"] for record in records]
        axes.plot(steps, [record[quantity] for record in records], "o-", color=PALETTE[0], markersize=3)
        for style, (key, label) in zip(("--", ":", "-."), _STARTS.items(), strict=True):
            start = records[-1].get(f"{key}_{quantity}")
            if start is not None:
                axes.axhline(start, color=FAINT, linestyle=style, label=label)
        axes.set(title=name, xlabel="step", ylabel=_ERRORS[quantity])
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=7, frameon=False, loc="center right")
    return figure
