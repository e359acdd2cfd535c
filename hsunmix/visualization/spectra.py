"""Endmember spectra over wavelength, with their uncertainty and what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .style import FAINT, INK, PALETTE, endmember_names, new_figure

__all__ = ["plot_endmembers", "plot_pixel"]

_NARROW = 5.5  # inches
_DETECTORS = 4  # of one sensor, at most; bands in more runs than that are in no order
_SPIKE = 3  # bands, at most: gas lines and joins of detectors, where the correction for the atmosphere fails
_REACH = 0.3  # of the height of the rest, so far may a spike stand out
_LEAST_MOVED = 0.01  # of the height of the axes: about the width of a line
_TWO_SIDED_90 = 1.6449  # standard deviations of a normal distribution around its 90 % interval


def plot_endmembers(
    endmembers: np.ndarray,
    wavelengths: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    uncertainty: np.ndarray | None = None,
    coarse: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    width: float = 8.0,
) -> Any:
    """Spectra with 90 % bands: all in one axes, or one panel each where they are compared with something.

    A coarse spectrum that the refined one covers is not drawn. Spikes of single bands don't set the limits of the
    axes; a triangle at the edge shows where they are.

    Args:
        endmembers: (R, B) reflectance; NaN where a band is missing.
        wavelengths: (B,) in nm, any order, or None. Lines are broken where the sensor has a gap, and where
            detectors overlap.
        names: R names.
        uncertainty: (R, B) standard deviations.
        coarse: (R, B) estimate before refinement.
        reference: (R, B) known spectra.
        width: inches of the figure with all in one axes; in a narrow one the names are below.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: shapes that don't agree.
    """
    spectra = np.asarray(endmembers, dtype=np.float64)
    if spectra.ndim != 2:
        raise ValueError(f"`endmembers` must have the shape (R, B), got {spectra.shape}")
    given = {"uncertainty": uncertainty, "coarse": coarse, "reference": reference}
    others = {key: np.asarray(value, dtype=np.float64) for key, value in given.items() if value is not None}
    for key, value in others.items():
        if value.shape != spectra.shape:
            raise ValueError(f"`{key}` has the shape {value.shape}, `endmembers` {spectra.shape}")
    axis, lines, label = _drawable({"refined": spectra} | others, wavelengths)
    names = endmember_names(names, len(spectra))
    about = "Endmembers" + (" with 90 % bands" if "uncertainty" in lines else "")
    if "coarse" in lines:
        moved = _moved(lines["refined"], lines["coarse"])
        lines["coarse"][~moved] = np.nan
        if not moved.any():
            del lines["coarse"]
            about += " (refinement changed nothing visible)"
    if "coarse" in lines or "reference" in lines:
        return _panels(axis, lines, names, label)
    return _one_axes(axis, lines, names, label, width, about)


def _moved(refined: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """(R,) bool: which of the refined spectra (R, B) a reader can tell from the coarse ones."""
    low, high = _limits(refined)
    return np.nanmax(np.abs(refined - coarse), axis=1, initial=0.0) > _LEAST_MOVED * (high - low)


def plot_pixel(
    measured: np.ndarray, wavelengths: np.ndarray | None = None, model: np.ndarray | None = None, title: str = ""
) -> Any:
    """The spectrum of one pixel, and what the mixture of the materials makes of it.

    Args:
        measured: (B,) reflectance; NaN where a band is missing.
        wavelengths: (B,) in nm, any order, or None.
        model: (B,) brightness times abundances times endmembers.
        title: put above.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: shapes that don't agree.
    """
    measured = np.asarray(measured, dtype=np.float64)
    spectra = {"measured": measured[None]}
    if model is not None:
        spectra["mixture"] = np.asarray(model, dtype=np.float64)[None]
        if spectra["mixture"].shape != spectra["measured"].shape:
            raise ValueError(f"`model` has the shape {np.shape(model)}, `measured` {measured.shape}")
    axis, lines, label = _drawable(spectra, wavelengths)
    figure = new_figure(4.6, 3.1)
    axes = figure.subplots()
    axes.plot(axis, lines["measured"][0], color=INK, lw=1.3, label="measured")
    if model is not None:
        axes.plot(axis, lines["mixture"][0], color=PALETTE[1], lw=1.3, ls=(0, (4, 2)), label="mixture found")
    _frame(axes, label)
    _limit(axes, np.concatenate(list(lines.values())))
    clipped = _mark_clipped(axes, axis, np.fmax.reduce(np.concatenate(list(lines.values()))), INK)
    if model is not None or clipped:
        axes.legend(handles=axes.get_legend_handles_labels()[0] + _clipped_handle(clipped), fontsize=9, frameon=False)
    axes.set_ylabel("reflectance", fontsize=9, color=INK)
    axes.set_title(title, fontsize=10, color=INK)
    return figure


def _drawable(
    spectra: dict[str, np.ndarray], wavelengths: np.ndarray | None
) -> tuple[np.ndarray, dict[str, np.ndarray], str]:
    """Axis, lines in ascending order with breaks at gaps and between detectors, and what the axis is called."""
    num_bands = next(iter(spectra.values())).shape[1]
    axis = np.arange(1.0, num_bands + 1) if wavelengths is None else np.asarray(wavelengths, dtype=np.float64)
    if axis.shape != (num_bands,):
        raise ValueError(f"`wavelengths` has {axis.size} values for {num_bands} bands")
    order, breaks = _order_and_breaks(axis)
    lines = {key: _broken(value[:, order], breaks) for key, value in spectra.items()}
    return _broken(axis[order][None], breaks)[0], lines, "band" if wavelengths is None else "wavelength (nm)"


def _order_and_breaks(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order in which bands are drawn, and before which of them a line is broken: at gaps, and between detectors.

    Where detectors overlap each is a line of its own: joined in the order of wavelengths they would zigzag.
    """
    order = np.arange(len(axis))
    if (np.diff(axis) < 0).sum() > len(axis) / 2:
        order = order[::-1]
    runs = np.split(order, np.flatnonzero(np.diff(axis[order]) < 0) + 1)
    if len(runs) > _DETECTORS:
        runs = [np.argsort(axis, kind="stable")]
    order = np.concatenate(sorted(runs, key=lambda run: float(axis[run].min(initial=np.inf))))
    steps = np.diff(axis[order])
    gap = max(2.5 * np.median(steps), 12.0) if len(steps) else np.inf
    return order, np.flatnonzero((steps < 0) | (steps > gap)) + 1


def _broken(rows: np.ndarray, breaks: np.ndarray) -> np.ndarray:
    return np.insert(rows, breaks, np.nan, axis=1)


def _limits(rows: np.ndarray) -> tuple[float, float]:
    """Between what values rows (L, B) are drawn: all that a running median has, and how far it and the noise reach."""
    size = 2 * _SPIKE + 1
    low, high, noise = np.inf, -np.inf, 0.0
    for row in rows:
        values = row[np.isfinite(row)]
        if len(values) >= 2 * size:
            windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, _SPIKE, mode="reflect"), size)
            smooth = np.median(windows, axis=1)
            noise = max(noise, 1.4826 * float(np.median(np.abs(values - smooth))))  # a standard deviation
            values = smooth
        if len(values):
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if low > high:
        return 0.0, 1.0
    reach = max(_REACH * (high - min(low, 0.0)), 5 * noise)
    return low - reach, high + reach


def _limit(axes: Any, rows: np.ndarray) -> None:
    """Set the limits for rows (L, B) so that spikes don't flatten the rest."""
    low, high = _limits(rows)
    values = rows[np.isfinite(rows)]
    if ((values < low) | (values > high)).any():
        kept = np.clip(values, low, high)
        axes.set_ylim(kept.min(), kept.max())
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))


def _mark_clipped(axes: Any, axis: np.ndarray, row: np.ndarray, color: str) -> bool:
    """Triangles at the edge where a line (B,) leaves the axes; whether there are any."""
    low, high = axes.get_ylim()
    with np.errstate(invalid="ignore"):
        edges = ((row > high, "^", 1.0), (row < low, "v", 0.0))
    for beyond, marker, height in edges:
        style: dict[str, Any] = {"marker": marker, "ls": "", "color": color, "ms": 5, "clip_on": False, "zorder": 4}
        if beyond.any():
            axes.plot(
                axis[beyond], np.full(beyond.sum(), height), transform=axes.get_xaxis_transform(), label="_", **style
            )
    return any(bool(beyond.any()) for beyond, _, _ in edges)


def _clipped_handle(clipped: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=FAINT, marker="^", ms=5, ls="", label="goes on beyond")] if clipped else []


def _one_axes(
    axis: np.ndarray, lines: dict[str, np.ndarray], names: list[str], label: str, width: float, title: str
) -> Any:
    narrow = width < _NARROW
    figure = new_figure(width, 4.2 + narrow * 0.2 * -(-len(names) // 2))
    axes = figure.subplots()
    for index, name in enumerate(names):
        _spectrum(axes, axis, lines, index, name)
    _frame(axes, label)
    handles = axes.get_legend_handles_labels()[0] + _clipped_handle(_limit_all([axes] * len(names), axis, lines))
    axes.set_ylabel(_quantity(lines["refined"]), fontsize=10, color=INK)
    figure.suptitle(title, fontsize=11, color=INK, wrap=True)
    columns = 1 if len(names) <= 12 else 2
    style: dict[str, Any] = {"handles": handles, "fontsize": 8, "frameon": False}
    if narrow:
        figure.legend(**style, loc="outside lower center", ncols=2)
    else:
        axes.legend(**style, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=columns)
    return figure


def _limit_all(panels: Sequence[Any], axis: np.ndarray, lines: dict[str, np.ndarray]) -> bool:
    """Limits for the panels of all endmembers, which share them; whether a spike is cut off, and marked."""
    rows = [value for key, value in lines.items() if key != "uncertainty"]
    if "uncertainty" in lines:
        rows += _interval(lines["refined"], lines["uncertainty"])
    _limit(panels[0], np.concatenate(rows))
    colors = [PALETTE[index % len(PALETTE)] for index in range(len(panels))]
    marked = [_mark_clipped(*each) for each in zip(panels, [axis] * len(panels), lines["refined"], colors)]
    return any(marked)


def has_common_maximum(spectra: np.ndarray) -> bool:
    """Whether spectra (R, B) have no scale of their own: where the brightness is free all have one maximum."""
    peaks = np.nanmax(spectra, axis=1)
    return len(peaks) > 1 and bool(np.ptp(peaks) < 1e-4 * peaks.max())


def _quantity(spectra: np.ndarray) -> str:
    relative = has_common_maximum(spectra)
    return "relative reflectance\n(all scaled to one maximum)" if relative else "reflectance"


def _panels(axis: np.ndarray, lines: dict[str, np.ndarray], names: list[str], label: str) -> Any:
    columns = min(len(names), 3 if len(names) in (3, 5, 6, 9) else 4)
    rows = -(-len(names) // columns)
    figure = new_figure(3.3 * columns + 0.4, 2.4 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for index, (axes, name) in enumerate(zip(grid.flat, names)):
        if "reference" in lines:
            axes.plot(axis, lines["reference"][index], color=INK, lw=1.2, ls=(0, (1, 1.2)), zorder=3)
        if "coarse" in lines:
            axes.plot(axis, lines["coarse"][index], color=FAINT, lw=1.1, ls=(0, (4, 2)), zorder=1)
        _spectrum(axes, axis, lines, index, name)
        axes.set_title(name, fontsize=10, color=INK)
        _frame(axes, label if index + columns >= len(names) else "")
        axes.tick_params(labelbottom=index + columns >= len(names))
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    clipped = _limit_all(list(grid.flat[: len(names)]), axis, lines)
    for axes in grid[:, 0]:
        axes.set_ylabel(_quantity(lines["refined"]), fontsize=9, color=INK)
    figure.legend(
        handles=_legend(lines) + _clipped_handle(clipped),
        loc="outside upper center",
        ncols=4,
        fontsize=9,
        frameon=False,
    )
    return figure


def _spectrum(axes: Any, axis: np.ndarray, lines: dict[str, np.ndarray], index: int, name: str) -> None:
    color = PALETTE[index % len(PALETTE)]
    middle = lines["refined"][index]
    if "uncertainty" in lines:
        low, high = _interval(middle, lines["uncertainty"][index])
        axes.fill_between(axis, low, high, color=color, alpha=0.25, lw=0, zorder=1)
    axes.plot(axis, middle, color=color, lw=1.5, label=name, zorder=2, marker="o" if len(axis) < 3 else None)


def _interval(middle: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 90 % interval; reflectance isn't negative, so it begins below 0 only with the spectrum itself."""
    half = _TWO_SIDED_90 * std
    return np.maximum(middle - half, np.minimum(middle, 0.0)), middle + half


def _legend(lines: dict[str, np.ndarray]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], color=PALETTE[0], lw=1.5, label="refined")]
    if "uncertainty" in lines:
        handles.append(Patch(color=PALETTE[0], alpha=0.25, lw=0, label="90 % interval"))
    if "coarse" in lines:
        handles.append(Line2D([], [], color=FAINT, lw=1.1, ls=(0, (4, 2)), label="coarse, where it differs"))
    if "reference" in lines:
        handles.append(Line2D([], [], color=INK, lw=1.2, ls=(0, (1, 1.2)), label="reference"))
    return handles


def _frame(axes: Any, label: str) -> None:
    axes.set_xlabel(label, fontsize=9, color=INK)
    axes.margins(x=0.01)
    axes.grid(color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=FAINT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
