"""One self-contained page about a result: pictures, numbers, what was masked, settings, how to make it again."""

from __future__ import annotations

import base64
import html
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data import atomic_path

__all__ = ["materials_table", "trust_table", "write_report"]

_PICTURES = (
    ("composite.png", "The scene"),
    ("abundances.png", "Abundances: the fraction of each material in every pixel"),
    ("endmembers.png", "Endmembers: the spectra of the materials"),
    ("residual.png", "Reconstruction error: what the mixing model doesn't explain"),
)
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
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td.number { text-align: right; white-space: nowrap; }
td code, pre { overflow-wrap: anywhere; white-space: pre-wrap; }
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
        folder: holds the pictures of `save_figures`.
        summary: numbers of the result, as in `summary.json`.
        settings: that it depends on.
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
<h2>Materials</h2>{materials_table(summary["endmembers"])}
{"".join(pictures)}
<h2>Can the result be trusted?</h2>{trust_table(summary)}
<h2>What was left out</h2>{_masked(cube, summary["quality"])}
<h2>How to make it again</h2>
<pre>{_text(shlex.join(["hsunmix", *_lasting(arguments)]))}</pre>
<h2>Settings</h2>{_table(settings)}
<h2>Software</h2>{_table(versions)}
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
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    source = f"data:image/png;base64,{content}"
    return f'<h2>{_text(caption)}</h2><div class="wide"><img src="{source}" alt="{_text(caption)}"></div>'


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
    head = "<tr><th>material</th><th>mean abundance</th><th>purest pixel</th><th></th></tr>"
    return f"<table>{head}{rows}</table>"


def trust_table(summary: Mapping[str, Any]) -> str:
    """What tells whether a result can be trusted, as an HTML table.

    Args:
        summary: numbers of the result, as in `summary.json`.
    """
    low, middle, high = (float(value) for value in summary["brightness_5_50_95_percentiles"])
    quality = summary["quality"]
    measured = max(sum(quality.values()) - quality["nodata"], 1)
    snr = "no noise found" if summary["snr_db"] is None else f"{summary['snr_db']:.0f} dB"
    mode = summary["brightness_mode"]
    poor = quality["poorly explained"]
    meaning = "varies over the scene" if mode == "free" else "held constant"
    rows = {
        "signal to noise": snr,
        "noise of a band (median)": f"{summary['noise_std_median']:.2g} (reflectance)",
        "reconstruction error": f"{summary['residual_rms']:.4f} (root mean square, reflectance)",
        "residual of the median pixel": f"{summary['residual_over_noise']:.1f} times the noise",
        "poorly explained": f"{poor} pixels ({100 * poor / measured:.2f} %)",
        "saturated": f"{quality['saturated']} pixels",
        "brightness": f"{mode}: {meaning}; 5, 50, 95 % of the pixels: {low:.2f}, {middle:.2f}, {high:.2f}",
    }
    if summary["unexplained"]:
        rows["warning"] = summary["unexplained"]
    return _table(rows)


def _masked(cube: Mapping[str, Any], quality: Mapping[str, int]) -> str:
    span = cube["wavelength_range_nm"]
    return _table(
        {
            "bands": f"{cube['bad_bands']} of {cube['shape'][2]}",
            "wavelengths of the file": "not known" if span is None else f"{span[0]:.0f} to {span[1]:.0f} nm",
            "pixels without data": quality["nodata"],
            "scale": f"numbers divided by {cube['scale']:g}",
            "file": cube["path"],
            "product": cube["product"] or "not said by the file",
        }
    )


def _table(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{_text(key)}</th><td><code>{_text(value)}</code></td></tr>"
        for key, value in values.items()
        if value is not None
    )
    return f"<table>{rows}</table>"
