"""Maps: abundances with their names and a colour bar from 0 to 1, their uncertainty, brightness, residual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .style import INK, bare_axes, color_map, endmember_names, new_figure, panel_size, upper_limit

__all__ = ["plot_abundances", "plot_brightness", "plot_residual"]

_MOST_COLUMNS = 6


def plot_abundances(
    abundances: np.ndarray,
    names: Sequence[str] | None = None,
    uncertainty: np.ndarray | None = None,
    coarse: np.ndarray | None = None,
    reference: np.ndarray | None = None,
) -> Any:
    """Abundance maps side by side; further rows for coarse estimate, reference and uncertainty where given.

    Beside a reference each row says how far it is from it.

    Args:
        abundances: (H, W, R), fractions; NaN pixels are grey.
        names: R endmember names.
        uncertainty: (H, W, R) standard deviations.
        coarse: (H, W, R) estimate before refinement.
        reference: (H, W, R) known truth.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: shapes that don't agree.
    """
    abundances = np.asarray(abundances)
    if abundances.ndim != 3:
        raise ValueError(f"`abundances` must have the shape (H, W, R), got {abundances.shape}")
    truth = None if reference is None else _like(reference, abundances, "reference")
    rows = [("abundance" if coarse is None and reference is None else "refined", abundances)]
    if coarse is not None:
        rows.insert(0, ("coarse", _like(coarse, abundances, "coarse")))
    if truth is not None:
        rows = [(f"{label}\nRMSE {_rmse(maps, truth):.4f}", maps) for label, maps in rows]
        rows.append(("reference", truth))
    spread = None if uncertainty is None else _like(uncertainty, abundances, "uncertainty")
    names = endmember_names(names, abundances.shape[2], 28 if abundances.shape[2] <= _MOST_COLUMNS else 20)
    if len(rows) == 1 and spread is None:
        return _wrapped(abundances, names)
    return _rows(rows, spread, names)


def _like(maps: np.ndarray, abundances: np.ndarray, name: str) -> np.ndarray:
    maps = np.asarray(maps)
    if maps.shape != abundances.shape:
        raise ValueError(f"`{name}` has the shape {maps.shape}, `abundances` {abundances.shape}")
    return maps


def _rmse(maps: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square error over the pixels and endmembers that both hold."""
    square = np.square(maps - truth)
    return float(np.sqrt(np.nanmean(square))) if np.isfinite(square).any() else float("nan")


def _wrapped(abundances: np.ndarray, names: list[str]) -> Any:
    height, width, count = abundances.shape
    num_rows = -(-count // _MOST_COLUMNS)
    columns = -(-count // num_rows)
    panel = panel_size(height, width)
    figure = new_figure(columns * panel[0] + 1.0, num_rows * (panel[1] + 0.35))
    grid = figure.subplots(num_rows, columns, squeeze=False)
    for axes, index in zip(grid.flat, range(count)):
        image = _show(axes, abundances[:, :, index])
        axes.set_title(names[index], fontsize=10, color=INK)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    _abundance_bar(figure, image, grid)
    return figure


def _rows(rows: list[tuple[str, np.ndarray]], spread: np.ndarray | None, names: list[str]) -> Any:
    height, width, count = rows[0][1].shape
    panel = panel_size(height, width, longest=2.7 if count <= _MOST_COLUMNS else 1.8)
    num_rows = len(rows) + (spread is not None)
    figure = new_figure(count * panel[0] + 1.4, num_rows * (panel[1] + 0.1) + 0.3)
    grid = figure.subplots(num_rows, count, squeeze=False)
    for line, (label, maps) in zip(grid, rows):
        for index, axes in enumerate(line):
            image = _show(axes, maps[:, :, index])
        line[0].set_ylabel(label, fontsize=10, color=INK)
    for axes, name in zip(grid[0], names):
        axes.set_title(name, fontsize=10 if count <= _MOST_COLUMNS else 8, color=INK)
    _abundance_bar(figure, image, grid[: len(rows)])
    if spread is not None:
        limit = upper_limit(spread)
        for index, axes in enumerate(grid[-1]):
            image = _show(axes, spread[:, :, index], "magma", limit)
        grid[-1, 0].set_ylabel("uncertainty", fontsize=10, color=INK)
        bar = figure.colorbar(image, ax=list(grid[-1]), fraction=0.05, pad=0.015, aspect=18, extend="max")
        _label(bar, "standard deviation")
    return figure


def _show(axes: Any, values: np.ndarray, colors: str = "viridis", limit: float = 1.0) -> Any:
    image = axes.imshow(
        np.ma.masked_invalid(values), cmap=color_map(colors), vmin=0, vmax=limit, interpolation="nearest"
    )
    bare_axes(axes)
    return image


def _abundance_bar(figure: Any, image: Any, grid: np.ndarray) -> None:
    bar = figure.colorbar(image, ax=list(grid.flat), fraction=0.05, pad=0.015, aspect=18 * len(grid))
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1])
    _label(bar, "abundance (fraction)")  # as long as the bar of the flattest map allows


def _label(bar: Any, text: str) -> None:
    bar.set_label(text, fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_linewidth(0.5)


def plot_residual(residual: np.ndarray) -> Any:
    """Where the mixing model explains the cube, and where it doesn't.

    Args:
        residual: (H, W) root mean square over the bands of cube minus reconstruction, in reflectance; NaN = nodata.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: `residual` isn't (H, W).
    """
    values = np.asarray(residual)
    finite = values[np.isfinite(values)]
    median = f" (median {np.median(finite):.2g})" if finite.size else ""
    return _one_map(values, "residual", "inferno", f"Reconstruction error{median}", "RMS over bands (reflectance)")


def plot_brightness(brightness: np.ndarray) -> Any:
    """How bright each pixel is beside what its mixture of materials would be in ordinary light.

    Args:
        brightness: (H, W), 1 = ordinary in this scene; NaN = nodata.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: `brightness` isn't (H, W).
    """
    return _one_map(np.asarray(brightness), "brightness", "cividis", "Brightness", "1 = ordinary in this scene")


def _one_map(values: np.ndarray, name: str, colors: str, title: str, label: str) -> Any:
    if values.ndim != 2:
        raise ValueError(f"`{name}` must have the shape (H, W), got {values.shape}")
    panel = panel_size(values.shape[0], values.shape[1], longest=4.2)
    figure = new_figure(panel[0] + 1.3, panel[1] + 0.6)
    axes = figure.subplots()
    image = _show(axes, values, colors, upper_limit(values))
    axes.set_title(title, fontsize=11, color=INK)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02, aspect=22, extend="max")
    _label(bar, label)
    return figure
