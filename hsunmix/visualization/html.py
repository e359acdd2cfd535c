"""One self-contained page about a result: pictures, numbers, what was masked, settings, how to make it again."""

from __future__ import annotations

import base64
import html
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import atomic_path
from ..data.bands import describe_bands

__all__ = ["UNCERTAINTY", "command_text", "library_names", "materials_table", "trust_table", "write_report"]

_PICTURES = (
    ("composite.png", "The scene"),
    ("abundances.png", "Abundances: the fraction of each material in every pixel"),
    ("endmembers.png", "Endmembers: the spectra of the materials"),
    ("brightness.png", "Brightness: how bright each pixel is"),
    ("residual.png", "Reconstruction error: what the mixing model doesn't explain"),
)
_NOTES = {
    "brightness.png": "The spectra of the materials are scaled to the same maximum and show shape alone. How bright a "
    "pixel is, by its light or by its material (water is dark), is in this map; 1 is ordinary in this scene."
}
UNCERTAINTY = (
    "Uncertainties and 90 % intervals say how far the result may be off if the spectra found are right. Where a "
    "material was missed, or two were taken for one, all shares may be off by more."
)
_MIXING = {
    "linear": "linear, spectra that are the same everywhere",
    "bilinear": "bilinear: light goes over two materials",
    "postnonlinear": "post-nonlinear: light goes over several materials",
    "variable": "linear, spectra that vary over the scene; those shown are ordinary ones",
}
_CSS_PIXEL = 96 / 150  # of a pixel of `save_figure`
_STYLE = """
:root { --ink: #1d2327; --faint: #667; --line: #d8dce0; --paper: #fff; --bar: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaec; --faint: #9aa3ab; --line: #3a4147; --paper: #16191c; --bar: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 66rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p.lead { color: var(--faint); margin: 0; }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 4px; }
.wide { overflow-x: auto; }
.note { color: var(--faint); font-size: .93rem; margin: .5rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; width: 15rem; } .number { text-align: right; white-space: nowrap; width: 1%; }
table.materials th { width: auto; vertical-align: bottom; }
table.materials td { vertical-align: middle; overflow-wrap: break-word; }
@media (max-width: 600px) { th { width: 8.5rem; } th.number { white-space: normal; } }
td, td code, pre { overflow-wrap: anywhere; white-space: pre-wrap; }
pre { padding: .8rem 1rem; border: 1px solid var(--line); border-radius: 4px; font-size: .88rem; }
.bar { background: var(--bar); height: .7rem; border-radius: 2px; min-width: 1px; }
"""


def write_report(
    folder: str | os.PathLike[str],
    summary: Mapping[str, Any],
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    arguments: Sequence[str],
) -> Path:
    """Write `report.html` beside the pictures of a result, which become part of it.

    Args:
        folder: holds the pictures of `save_figures`; from `results.npz`, where it is there, the page takes which bands
            were left out.
        summary: numbers of the result, as in `summary.json`.
        settings: that it depends on; of a library (`library` or `named by`) the page says what its names mean.
        versions: of the software.
        arguments: of the command line.

    Returns:
        The page.
    """
    folder = Path(folder)
    cube = summary["cube"]
    height, width, bands = cube["shape"]
    name = Path(cube["path"]).name if cube["path"] else "scene"
    used = bands - cube["bad_bands"]
    pictures = [_picture(folder / file, caption) for file, caption in _PICTURES if (folder / file).is_file()]
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(name)}: unmixing</title><style>{_STYLE}</style></head><body>
<h1>{_text(name)}</h1>
<p class="lead">{height} &times; {width} pixels, {used} of {bands} bands, unmixed into
{summary["num_endmembers"]} materials by hsunmix {_text(versions["hsunmix"])}</p>
<h2>Materials</h2>{materials_table(summary["endmembers"])}{_about_names(settings)}
{"".join(pictures)}
<h2>Can the result be trusted?</h2>{trust_table(summary)}
<p class="note">{UNCERTAINTY}</p>
<h2>What was read</h2>{_table(_file(cube))}
<h2>What was left out</h2>{_table(_left_out(cube, summary["quality"], folder / "results.npz"))}
<h2>How to make it again</h2>
<pre>{command_text(_lasting(arguments))}</pre>
<h2>Settings</h2>{_table(settings, code=True)}
<h2>Software</h2>{_table(versions, code=True)}
</body></html>
"""
    path = folder / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _text(value: Any) -> str:
    return html.escape(str(value))


def _lasting(arguments: Sequence[str]) -> list[str]:
    """Arguments without those that only say how to go on after an interruption."""
    return [item for item in arguments if item not in ("--resume", "--overwrite")]


def _picture(path: Path, caption: str) -> str:
    content = path.read_bytes()
    width = int.from_bytes(content[16:20], "big") * _CSS_PIXEL  # of a PNG
    size = f"width:{width:.0f}px;min-width:{0.6 * width:.0f}px"  # wide ones can be scrolled on a telephone
    source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    note = f'<p class="note">{_NOTES[path.name]}</p>' if path.name in _NOTES else ""
    image = f'<img style="{size}" src="{source}" alt="{_text(caption)}">'
    return f'<h2>{_text(caption)}</h2><div class="wide">{image}</div>{note}'


def command_text(arguments: Sequence[str]) -> str:
    """A command line as HTML that doesn't break within the hyphens of an option.

    Args:
        arguments: of `hsunmix`.
    """
    words = [_text(shlex.quote(word)) for word in ("hsunmix", *arguments)]
    return " ".join(f'<span style="white-space:nowrap">{w}</span>' if w.startswith("--") else w for w in words)


def _about_names(settings: Mapping[str, Any]) -> str:
    """What names mean that come from a library; nothing where they don't."""
    library = settings.get("library") or settings.get("named by")
    return "" if not library else f'<p class="note">{library_names(Path(str(library)).name)}</p>'


def library_names(library: str) -> str:
    """What the names of a library say about materials, and what they don't, as HTML.

    Args:
        library: what it is called.
    """
    return (
        f"The names are those of the nearest spectra in the library {_text(library)}: their shape is the most similar "
        "there. That doesn't identify the material, which need not be in the library at all."
    )


def materials_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """The materials of a result with their mean abundances, as an HTML table.

    Args:
        entries: `endmembers` of `summary.json`.
    """
    rows = "".join(
        f'<tr><td>{_text(entry["name"])}</td><td class="number">{100 * entry["mean_abundance"]:.1f} %</td>'
        f'<td class="number">{entry["maximum"]:.2f}</td>'
        f'<td style="width:45%"><div class="bar" style="width:{100 * entry["mean_abundance"]:.1f}%"></div></td></tr>'
        for entry in entries
    )
    head = (
        '<tr><th>material</th><th class="number">mean abundance</th><th class="number">purest pixel</th><th></th></tr>'
    )
    return f'<table class="materials">{head}{rows}</table>'


def trust_table(summary: Mapping[str, Any]) -> str:
    """What tells whether a result can be trusted, as an HTML table.

    Args:
        summary: numbers of the result, as in `summary.json`.
    """
    low, middle, high = (float(value) for value in summary["brightness_5_50_95_percentiles"])
    quality = summary["quality"]
    measured = max(sum(quality.values()) - quality["nodata"], 1)
    snr = "no noise found" if summary["snr_db"] is None else f"{summary['snr_db']:.0f} dB"
    spread = f"5 % of the pixels are below {low:.2f}, half below {middle:.2f}, 95 % below {high:.2f}"
    poor = quality["poorly explained"]
    free = summary["brightness_mode"] == "free"
    rows = {
        "signal to noise": snr,
        "noise of a band (median)": f"{summary['noise_std_median']:.2g} (reflectance)",
        "reconstruction error": f"{summary['residual_rms']:.4f} (root mean square, reflectance)",
        "residual of the median pixel": f"{summary['residual_over_noise']:.1f} times the noise",
        "poorly explained": f"{poor} pixels ({100 * poor / measured:.2f} %)",
        "saturated": f"{quality['saturated']} pixels",
        "mixing": _MIXING[summary["mixing_model"]],
        "brightness": f"varies over the scene (free): {spread}" if free else "held constant (fixed)",
    }
    if summary["unexplained"]:
        rows["warning"] = summary["unexplained"]
    return _table(rows)


def _file(cube: Mapping[str, Any]) -> dict[str, Any]:
    """What was read, and how its numbers were taken."""
    height, width, bands = cube["shape"]
    span, scale = cube["wavelength_range_nm"], cube["scale"]
    return {
        "file": cube["path"],
        "product": cube["product"] or "not said by the file",
        "size": f"{height} x {width} pixels, {bands} bands",
        "wavelengths": "not known" if span is None else f"{span[0]:.0f} to {span[1]:.0f} nm",
        "scale": "numbers taken as reflectance" if scale == 1 else f"numbers divided by {scale:g}",
    }


def _left_out(cube: Mapping[str, Any], quality: Mapping[str, int], results: Path) -> dict[str, Any]:
    """How many bands and pixels, and which bands: those without noise in the arrays of the result."""
    num_bands, pixels = cube["shape"][2], cube["shape"][0] * cube["shape"][1]
    bands = f"{cube['bad_bands']} of {num_bands}"
    if cube["bad_bands"] and results.is_file():
        with np.load(results, allow_pickle=False) as arrays:
            bands += f": {describe_bands(np.isnan(arrays['noise']), arrays.get('wavelengths'))}"
    return {"bands": bands, "pixels without data": f"{quality['nodata']} of {pixels}"}


def _table(values: Mapping[str, Any], code: bool = False) -> str:
    begin, end = ("<code>", "</code>") if code else ("", "")
    rows = "".join(
        f"<tr><th>{_text(key)}</th><td>{begin}{_text(value)}{end}</td></tr>"
        for key, value in values.items()
        if value is not None
    )
    return f"<table>{rows}</table>"
