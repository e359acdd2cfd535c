"""What a click on the picture shows: the spectrum of the pixel, its mixture, and how sure that is."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from .session import Result, Scene
from .texts import LIKE, LIKELY
from .views import figure_html

__all__ = ["mixture", "pixel_panel"]

_QUALITY = {
    2: "The sensor was saturated here, or the reflectance is impossibly high: don't trust this pixel.",
    3: "This pixel is explained worse than most: it may hold a material that was not found.",
}


def mixture(result: Result, row: int, column: int) -> list[tuple[int, str, float, float, float]]:
    """The materials of one pixel, the largest share first.

    Args:
        result: of the scene.
        row: counted from 0.
        column: counted from 0.

    Returns:
        Index, name, share, and the bounds between which it lies with 90 % probability.
    """
    maps = (result.maps.abundances, result.lower, result.upper)
    shares, lower, upper = (np.asarray(values)[row, column] for values in maps)
    order = np.argsort(-shares, kind="stable")
    return [(int(i), result.names[i], float(shares[i]), float(lower[i]), float(upper[i])) for i in order]


def pixel_panel(scene: Scene, result: Result | None, row: int, column: int) -> str:
    """HTML about one pixel.

    Args:
        scene: that was clicked.
        result: of it; None before it is unmixed.
        row: counted from 0.
        column: counted from 0.

    Raises:
        ValueError: the pixel is outside the scene.
    """
    height, width, _ = scene.cube.shape
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"There is no pixel in row {row + 1}, column {column + 1}: the scene is {height} x {width}.")
    place = f"Pixel in row {row + 1}, column {column + 1}"
    head = f'<h3 class="hs-place">{place}</h3>'
    measured = np.where(scene.cube.band_mask, scene.cube.data[row, column], np.nan)
    if scene.cube.nodata_mask[row, column] or not np.isfinite(measured).any():
        return f"{head}<p>The sensor has no data here.</p>"
    model = None
    if result is not None and np.isfinite(result.maps.abundances[row, column]).all():
        mixed = result.maps.abundances[row, column] @ result.spectra["endmembers"]
        model = result.maps.brightness[row, column] * mixed
    picture = figure_html(
        _figure(measured, scene, model), f"Spectrum of the pixel in row {row + 1}, column {column + 1}"
    )
    over = "band (the file doesn't say their wavelengths)" if scene.cube.wavelengths is None else "wavelength"
    note = f"The share of the light that the pixel reflects (0 to 1), at each {over}."
    if model is None or result is None:
        return f"{head}{picture}<p class='hs-note'>{note} Its mixture is shown after <b>Unmix</b>.</p>"
    return f"{head}{_bars(result, row, column)}{_facts(result, row, column)}{picture}<p class='hs-note'>{note}</p>"


def _figure(measured: np.ndarray, scene: Scene, model: np.ndarray | None) -> Any:
    from hsunmix.visualization import plot_pixel

    return plot_pixel(measured, scene.cube.wavelengths, model)


def _bars(result: Result, row: int, column: int) -> str:
    from hsunmix.visualization.style import PALETTE

    truth = _true_shares(result, row, column)
    lines = []
    for index, name, share, lower, upper in mixture(result, row, column):
        color = PALETTE[index % len(PALETTE)]
        known = "" if truth is None or index not in truth else f"<td>{100 * truth[index]:.0f} %</td>"
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="hs-share">{100 * share:.0f} %</td>'
            f"<td>{100 * lower:.0f} to {100 * upper:.0f} %</td>{known or ('<td></td>' if truth else '')}"
            f'<td class="hs-track"><div><i style="width:{100 * share:.1f}%;background:{color}"></i>'
            f'<b style="left:{100 * lower:.1f}%;width:{100 * (upper - lower):.1f}%"></b></div></td></tr>'
        )
    head = "<th>material</th><th>share</th><th>likely range</th>" + ("<th>truth</th>" if truth else "") + "<th></th>"
    return f'<table class="hs-mixture"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _true_shares(result: Result, row: int, column: int) -> dict[int, float] | None:
    """The true share of each material found, where the scene was simulated."""
    if result.scores is None or result.scene.truth is None:
        return None
    shares = result.scene.truth["abundances"][row, column]
    return {int(found): float(share) for found, share in zip(result.scores["order"], shares)}


def _facts(result: Result, row: int, column: int) -> str:
    quality = int(result.maps.quality[row, column])
    warning = f'<p class="hs-warning">{_QUALITY[quality]}</p>' if quality in _QUALITY else ""
    return (
        f"<p class='hs-note'>{LIKELY}{f' {LIKE}' if result.nearest else ''}</p><p class='hs-note'>Brightness "
        f"{result.maps.brightness[row, column]:.2f} (1 = ordinary in this scene). Not explained: "
        f"{result.maps.residual[row, column]:.4f} of reflectance (root mean square over the bands).</p>{warning}"
    )
