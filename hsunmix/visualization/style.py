"""What all pictures share: colours, sizes, plain axes. No pyplot: figures are objects and need no display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MISSING = "#c4c4c4"  # nodata pixels
INK = "#222222"
FAINT = "#8a8a8a"

# Distinct for colour-blind readers up to eight (Okabe & Ito, 2008), then four more.
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#6A3D9A",
    "#8C6D31",
    "#1B7837",
    "#B2182B",
    "#4D4D4D",
    "#01665E",
)


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure in inches whose layout keeps titles and colour bars apart."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.06)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def panel_size(height: int, width: int, longest: float = 2.7) -> tuple[float, float]:
    """Width and height in inches of a panel for an image of (height, width) pixels."""
    scale = longest / max(height, width)
    return max(width * scale, 0.8), max(height * scale, 0.8)


def color_map(name: str) -> Any:
    """A colour map that shows missing values in grey."""
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad=MISSING)


def bare_axes(axes: Any) -> None:
    """An axes for an image: no ticks, a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
        spine.set_color(FAINT)


def endmember_names(names: Sequence[str] | None, count: int, longest: int = 28) -> list[str]:
    """Names for titles, cut to `longest` characters; "endmember 1", ... where there are none.

    Raises:
        ValueError: the number of names is not `count`.
    """
    if names is None:
        return [f"endmember {index + 1}" for index in range(count)]
    if len(names) != count:
        raise ValueError(f"`names` has {len(names)} entries for {count} endmembers")
    return [name if len(name) <= longest else name[: longest - 1] + "…" for name in map(str, names)]


def upper_limit(values: np.ndarray, percentile: float = 99.5) -> float:
    """Upper end of a colour bar: robust against single pixels, never zero."""
    finite = values[np.isfinite(values)]
    limit = float(np.percentile(finite, percentile)) if finite.size else 1.0
    return limit if limit > 0 else 1.0
