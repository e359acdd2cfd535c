"""The HTML of the page: pictures inside it, so that none lies on the server; all text of visitors escaped."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from . import texts
from .session import Result, Scene

if TYPE_CHECKING:
    from hsunmix.data import Cube

__all__ = [
    "command_html",
    "error_html",
    "figure_html",
    "layers",
    "library_html",
    "maps_html",
    "scene_html",
    "spectra_html",
    "status_html",
    "taken_html",
    "trust_html",
]

COLOURS = "the colours of the scene"
ERROR = "what is not explained"
MOST_RANGES = 5  # of bands left out, in words


def status_html(text: str) -> str:
    """A line about what is there, or was done."""
    return f'<div class="hs-status" role="status">{escape(text)}</div>'


def error_html(text: str) -> str:
    """What went wrong, for the visitor."""
    return f'<div class="hs-status hs-error" role="alert"><b>That did not work.</b> {escape(text)}</div>'


def taken_html(scene: Scene) -> str:
    """What was taken in: name, size, bands, what is left out, how the numbers are read."""
    cube = scene.cube
    height, width, bands = cube.shape
    known = cube.wavelengths
    span = "wavelengths not known" if known is None else f"{known.min():.0f} to {known.max():.0f} nm"
    masked = int((~cube.band_mask).sum())
    rows = {
        "size": f"{height} x {width} pixels",
        "bands": f"{bands} ({span})",
        "bands left out": f"{masked}: {_masked_bands(cube)} (water vapour, or bad by the file)" if masked else "none",
    }
    if cube.nodata_mask.any():
        rows["pixels without data"] = str(int(cube.nodata_mask.sum()))
    if cube.scale != 1:
        source = "guessed" if scene.given_scale is None else "as you said"
        rows["numbers"] = f"divided by {cube.scale:g} ({source if scene.other_scale else 'as the file says'})"
    lines = "".join(f'<tr><th scope="row">{key}</th><td>{escape(value)}</td></tr>' for key, value in rows.items())
    return (
        f'<div class="hs-taken"><b><span aria-hidden="true">✓</span> {escape(scene.name)}</b>'
        f'<table class="hs-table"><tbody>{lines}</tbody></table></div>'
    )


def library_html(name: str, count: int) -> str:
    """The library that was taken in."""
    return f'<div class="hs-taken"><b><span aria-hidden="true">✓</span> {escape(name)}</b>, {count} spectra</div>'


def _masked_bands(cube: Cube) -> str:
    """Where the bands are that are left out, such as "1313 to 1485 nm, 2442 nm"."""
    known = cube.wavelengths
    order = np.arange(cube.num_bands) if known is None else np.argsort(known, kind="stable")
    values = np.arange(1, cube.num_bands + 1) if known is None else known[order]
    edges = np.diff(np.concatenate([[0], ~cube.band_mask[order], [0]]).astype(int))
    runs = [(values[a], values[b - 1]) for a, b in zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0))]
    shown = [f"{a:.0f}" if a == b else f"{a:.0f} to {b:.0f}" for a, b in runs[:MOST_RANGES]]
    return ", ".join(shown) + (" and others" if len(runs) > MOST_RANGES else "") + ("" if known is None else " nm")


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
    return [COLOURS] if result is None else [COLOURS, *(f"share: {name}" for name in result.names), ERROR]


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
        natural = bands.startswith("true")
        return image.clip(0, 1), f"{bands[0].upper()}{bands[1:]}{'' if natural else ', not as an eye would see it'}."
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
            called = result.scene.truth["names"][order[index]].replace("_", " ")
            known = f" (truth: {called}, {100 * truth.mean():.1f} %)"
        figure = plot_abundances(result.maps.abundances[:, :, part], [name], uncertainty, reference=truth)
        share = 100 * result.summary["endmembers"][index]["mean_abundance"]
        caption = f"{name}: on average {share:.1f} % of a pixel{known}"
        cards.append(f"<figure>{figure_html(figure, caption)}<figcaption>{escape(caption)}</figcaption></figure>")
    return (
        '<p class="hs-note">The share (abundance) of each material in every pixel (0 = none, 1 = nothing else), and '
        "below it how far it may be off if the spectra found are right (uncertainty: standard deviation)."
        f'{_like(result)}</p><div class="hs-cards">{"".join(cards)}</div>{_scores(result)}'
    )


def _like(result: Result) -> str:
    return f" {texts.LIKE}" if result.nearest else ""


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
    height = (
        " How bright each one is can't be told where the light varies over the scene, as here: all are drawn with one "
        "maximum, compare their shapes."
        if result.summary["brightness_mode"] == "free"
        else ""
    )
    note = (
        f"The spectrum of each material: the share of the light that it reflects at each wavelength.{height} The pale "
        "bands around the lines show how far each may be off (90 % probability), if these are the materials of the "
        "scene."
    )
    picture = figure_html(figure, "Spectra of the materials over wavelength", narrow)
    return f'<p class="hs-note">{note}</p>{picture}{_nearest(result)}'


def _nearest(result: Result) -> str:
    from hsunmix.visualization.html import library_names

    if result.nearest is None:
        text = (
            f"The library could not be used: {result.library_note}."
            if result.library_note
            else "What the materials are called is not known: the page finds spectra, not names. Give a spectral "
            "library under “More choices” and unmix again to see the most similar spectra of it."
        )
        return f'<p class="hs-note">{escape(text)}</p>'
    rows = "".join(
        f'<tr><th scope="row">material {index + 1}</th>'
        + "".join(f"<td>{escape(match)} <small>{np.degrees(angle):.1f}°</small></td>" for match, angle in matches)
        + "</tr>"
        for index, matches in enumerate(result.nearest)
    )
    head = "<th></th><th>nearest</th>" + "".join(f"<th>{word}</th>" for word in ("second", "third")[: _others(result)])
    return (
        f'<p class="hs-note">{library_names(result.library_name)} The angle between two spectra says how similar they '
        "are: 0° = the same shape; from 5 to 10° on they are different materials. Where the nearest is farther than "
        f'10°, its name is not used.</p><div class="hs-wide"><table class="hs-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _others(result: Result) -> int:
    """How many columns stand beside the nearest spectrum."""
    return len((result.nearest or [[]])[0]) - 1


def command_html(result: Result) -> str:
    """What gives the same result without the page."""
    from hsunmix.visualization.html import command_text

    command = command_text(result.command)
    return f'<p class="hs-note">The same on the command line:</p><pre class="hs-command">{command}</pre>'


def trust_html(result: Result) -> str:
    """How far the result can be trusted."""
    from hsunmix.visualization import plot_residual
    from hsunmix.visualization.html import UNCERTAINTY, materials_table, trust_table

    figure = figure_html(plot_residual(np.asarray(result.maps.residual)), "What the mixture does not explain")
    return (
        '<p class="hs-note">Where the picture is bright, the materials found don\'t explain the pixel: try more of '
        f'them.</p><div class="hs-report">{figure}'
        f'<div><div class="hs-wide">{materials_table(result.summary["endmembers"])}</div>'
        f'<div class="hs-wide">{trust_table(result.summary)}</div><p class="hs-note">{UNCERTAINTY}</p></div></div>'
    )
