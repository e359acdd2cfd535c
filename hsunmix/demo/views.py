"""The HTML of the page: pictures inside it, so that none lies on the server; all text of visitors escaped."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from typing import Any

import numpy as np

from .session import Result, Scene

__all__ = [
    "error_html",
    "figure_html",
    "layers",
    "maps_html",
    "scene_html",
    "spectra_html",
    "status_html",
    "trust_html",
]

COLOURS = "the colours of the scene"
ERROR = "what is not explained"


def status_html(text: str) -> str:
    """A line about what is there, or was done."""
    return f'<div class="hs-status" role="status">{escape(text)}</div>'


def error_html(text: str) -> str:
    """What went wrong, for the visitor."""
    return f'<div class="hs-status hs-error" role="alert"><b>That did not work.</b> {escape(text)}</div>'


def figure_html(figure: Any, caption: str, narrow: Any = None) -> str:
    """A matplotlib figure as a picture in the page.

    Args:
        figure: drawn at its own size.
        caption: for those who can't see it.
        narrow: another one for telephones.
    """
    source = f'<source media="(max-width: 600px)" srcset="{_png(narrow)}">' if narrow is not None else ""
    width = round(96 * figure.get_figwidth())
    picture = f'<img src="{_png(figure)}" alt="{escape(caption)}" style="width:{width}px">'
    return f'<picture class="hs-figure">{source}{picture}</picture>'


def _png(figure: Any) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return _data_uri(buffer)


def _data_uri(buffer: BytesIO) -> str:
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def layers(result: Result | None) -> list[str]:
    """What the picture can show."""
    return [COLOURS] if result is None else [COLOURS, *(f"share of {name}" for name in result.names), ERROR]


def scene_html(scene: Scene, result: Result | None = None, layer: str = COLOURS) -> str:
    """The scene to click on.

    Args:
        scene: its pixels.
        result: of it, or None.
        layer: one of `layers(result)`.

    Raises:
        ValueError: there is no such layer.
    """
    from matplotlib.image import imsave

    if layer not in layers(result):
        raise ValueError(f"There is no picture of {layer}.")
    image, caption = _layer(scene, result, layers(result).index(layer))
    buffer = BytesIO()
    imsave(buffer, image, format="png")
    height, width, bands = scene.cube.shape
    about = f"{escape(scene.name)}: {height} rows, {width} columns, {bands} bands. {caption}"
    return (
        f'<div class="hs-scene" tabindex="0" role="application" data-rows="{height}" data-columns="{width}" '
        f'aria-label="The scene: click a pixel, or move with the arrow keys and press Enter" '
        f'style="aspect-ratio:{width}/{height};max-width:min(100%, {36 * width / height:.2f}rem)">'
        f'<img src="{_data_uri(buffer)}" alt="{escape(layer)}" draggable="false">'
        f'<span class="hs-marker" hidden></span></div><p class="hs-note">{about}</p>'
    )


def _layer(scene: Scene, result: Result | None, index: int) -> tuple[np.ndarray, str]:
    """Colours (H, W, 3 or 4) of a layer, and what they mean."""
    from hsunmix.visualization import scene_preview
    from hsunmix.visualization.style import color_map, upper_limit

    if index == 0 or result is None:
        image, bands = scene_preview(scene.cube)
        return image.clip(0, 1), f"{bands[0].upper()}{bands[1:]}."
    if index <= len(result.names):
        values, limit, name = result.maps.abundances[:, :, index - 1], 1.0, "viridis"
        caption = "Share of the pixel: dark blue 0, yellow 1; grey: no data."
    else:
        values, name = result.maps.residual, "inferno"
        limit = upper_limit(values)
        caption = (
            f"What the mixture leaves unexplained, reflectance: black 0, light yellow {limit:.3g}; grey: no data."
        )
    return color_map(name)(np.ma.masked_invalid(np.asarray(values) / limit)), caption


def maps_html(result: Result) -> str:
    """Where each material is, one card each, with the truth where it is known."""
    from hsunmix.visualization import plot_abundances

    order = {} if result.scores is None else {int(found): true for true, found in enumerate(result.scores["order"])}
    cards = []
    for index, name in enumerate(result.names):
        part = slice(index, index + 1)
        uncertainty = None if result.maps.uncertainty is None else result.maps.uncertainty[:, :, part]
        truth, known = None, ""
        if index in order and result.scene.truth is not None:
            truth = result.scene.truth["abundances"][:, :, order[index] : order[index] + 1]
            called = result.scene.truth["names"][order[index]].removeprefix("parametric ").replace("_", " ")
            known = f" (truth: {called}, {100 * truth.mean():.1f} %)"
        figure = plot_abundances(result.maps.abundances[:, :, part], [name], uncertainty, reference=truth)
        share = 100 * result.summary["endmembers"][index]["mean_abundance"]
        caption = f"{name}: on average {share:.1f} % of a pixel{known}"
        cards.append(f"<figure>{figure_html(figure, caption)}<figcaption>{escape(caption)}</figcaption></figure>")
    return (
        '<p class="hs-note">The share of each material in every pixel (0 = none, 1 = nothing else), and below it how '
        f'far it may be off (standard deviation).</p><div class="hs-cards">{"".join(cards)}</div>{_scores(result)}'
    )


def _scores(result: Result) -> str:
    if result.scene.truth is None:
        return ""
    if result.scores is None:
        count = len(result.scene.truth["endmembers"])
        return f'<p class="hs-note">The scene has {count} materials; with fewer there is nothing to compare.</p>'
    rmse, angle = result.scores["abundance_rmse"], np.degrees(result.scores["sad"])
    return (
        f'<p class="hs-note">Against the truth: shares are off by {100 * rmse:.1f} % of a pixel (root mean square), '
        f"spectra by an angle of {angle:.1f} degrees (0 = the same colour at every wavelength).</p>"
    )


def spectra_html(result: Result) -> str:
    """What the materials look like, and what they may be."""
    from hsunmix.visualization import plot_endmembers

    spectra = (result.spectra["endmembers"], result.scene.cube.wavelengths, result.names)
    spread = result.spectra["endmember_uncertainty"]
    figure, narrow = (plot_endmembers(*spectra, spread, width=width) for width in (8.0, 3.9))
    note = (
        "The spectrum of each material: the share of the light that it reflects at each wavelength. The bands around "
        "the lines are where the true spectrum lies with 90 % probability."
    )
    picture = figure_html(figure, "Spectra of the materials over wavelength", narrow)
    return f'<p class="hs-note">{note}</p>{picture}{_nearest(result)}'


def _nearest(result: Result) -> str:
    if result.nearest is None:
        text = (
            f"The library could not be used: {result.library_note}."
            if result.library_note
            else "What the materials are called is not known: the page finds spectra, not names. Give a spectral "
            "library under “More choices” and unmix again to see the most similar spectra of it."
        )
        return f'<p class="hs-note">{escape(text)}</p>'
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(match)} <small>{np.degrees(angle):.1f}°</small></td>" for match, angle in matches)
        + "</tr>"
        for name, matches in zip(result.names, result.nearest)
    )
    return (
        '<p class="hs-note">The most similar spectra of your library, with the angle between the two (0° = the same '
        "shape; above 5 to 10° they are different materials).</p>"
        f'<div class="hs-wide"><table class="hs-table"><tbody>{rows}</tbody></table></div>'
    )


def trust_html(result: Result) -> str:
    """How far the result can be trusted."""
    from hsunmix.visualization import plot_residual
    from hsunmix.visualization.html import materials_table, trust_table

    figure = figure_html(plot_residual(np.asarray(result.maps.residual)), "What the mixture does not explain")
    return (
        '<p class="hs-note">Where the picture is bright, the materials found don\'t explain the pixel: try more of '
        f'them.</p><div class="hs-report">{figure}'
        f'<div><div class="hs-wide">{materials_table(result.summary["endmembers"])}</div>'
        f'<div class="hs-wide">{trust_table(result.summary)}</div></div></div>'
    )
