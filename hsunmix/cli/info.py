"""`hsunmix info`: what a file, a checkpoint or this installation is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .common import bundled_checkpoints, devices, say, versions

DESCRIPTION = """\
Say what a file holds: shape, wavelengths, scale, bad bands and nodata of a cube, spectra of a library, components of a
checkpoint. Without a file: versions, bundled checkpoints and devices.
"""

EXAMPLES = """\
examples:
  hsunmix info
  hsunmix info scene.hdr
  hsunmix info usgs.sli
  hsunmix info path/to/checkpoint
"""

_SAMPLE = 300_000  # pixels that are looked at


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "info",
        help="what a file, a checkpoint or this installation is",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        **options,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="cube, spectral library, checkpoint folder, or a bundled checkpoint's name",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Describe."""
    if args.file is None:
        return _lines(describe_installation())
    path = Path(args.file)
    if not path.exists() and args.file in bundled_checkpoints():
        path = Path(__file__).resolve().parent.parent / "checkpoints" / args.file
    if path.is_dir() and not list(path.glob("ENMAP*-METADATA.XML")):
        return _lines(describe_checkpoint(path))
    if _is_library(path):
        return _lines(describe_library(path))
    return _lines(describe_cube(path))


def _lines(lines: list[tuple[str, str]]) -> int:
    longest = max(len(label) for label, _ in lines)
    for label, value in lines:
        say(f"{label:{longest}}  {value}")
    return 0


def describe_installation() -> list[tuple[str, str]]:
    """Versions, checkpoints, devices."""
    return [
        *versions().items(),
        ("checkpoints", ", ".join(bundled_checkpoints()) or "none"),
        ("devices", ", ".join(devices())),
    ]


def describe_checkpoint(folder: Path) -> list[tuple[str, str]]:
    """Components, their sizes, and the defaults stored with them."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} is a folder without model_index.json: not a checkpoint")
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{index}: not readable ({error})") from error
    lines = [("checkpoint", str(folder)), ("pipeline", str(content.get("_class_name", "?")))]
    for key, value in content.items():
        if isinstance(value, list) and len(value) == 2:
            size = sum(file.stat().st_size for file in (folder / key).glob("*.safetensors"))
            lines.append((key, f"{value[1]}" + (f", {size / 1e6:.1f} MB" if size else "")))
        elif not key.startswith("_"):
            lines.append((key, str(value)))
    return lines


def describe_cube(path: Path) -> list[tuple[str, str]]:
    """Shape, wavelengths, scale, masks, range of values."""
    import numpy as np

    from hsunmix.data import open_cube
    from hsunmix.tiling import sample_scene

    cube = open_cube(path)
    height, width, bands = cube.shape
    sample = sample_scene(cube, _SAMPLE)  # a granule is not read as a whole
    values = sample.data[~sample.nodata_mask][:, sample.band_mask]
    lines = [("cube", str(cube.path or path)), ("shape", f"{height} rows x {width} columns x {bands} bands")]
    if cube.product:
        lines.insert(1, ("product", cube.product))
    lines.append(("wavelengths", _range(cube.wavelengths)))
    if cube.fwhm is not None:
        lines.append(("band width", f"{np.median(cube.fwhm):.1f} nm (median)"))
    lines.append(("scale", f"numbers divided by {cube.scale:g}"))
    lines.append(("bad bands", f"{int((~sample.band_mask).sum())} of {bands}"))
    if height * width <= _SAMPLE:
        lines.append(("nodata", f"{int(sample.nodata_mask.sum())} of {height * width} pixels"))
    if values.size:
        where = "" if height * width <= _SAMPLE else " (of a sample)"
        lines.append(("values", f"{values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}{where}"))
        if values.max() > 20:
            lines.append(("", "too large for reflectance: unmix with --scale (often 10000)"))
    if "map info" in cube.metadata:
        lines.append(("map info", ", ".join(map(str, cube.metadata["map info"]))))
    if cube.georeference is not None and cube.georeference.crs:
        lines.append(("coordinates", cube.georeference.crs))
    if cube.ortho is not None:
        rows, columns = cube.ortho.shape
        lines.append(("map", f"{rows} rows x {columns} columns by its lookup table (--ortho)"))
    return lines


def _is_library(path: Path) -> bool:
    if path.suffix.lower() == ".csv":
        return True
    if path.suffix.lower() == ".npz":
        from hsunmix.data.readers import load_npz

        arrays = load_npz(path)
        return not {"cube", "Y"} & set(arrays) and bool({"spectra", "endmembers", "library"} & set(arrays))
    if path.is_dir() or path.suffix.lower() in (".npy", ".mat", ".nc", ".he5", ".h5", ".tif", ".tiff", ".xml"):
        return False
    from hsunmix.data.envi import find_envi_pair

    try:
        header, _ = find_envi_pair(path)
    except FileNotFoundError:  # reading it as a cube will say what is wrong
        return False
    text = header.read_text(encoding="utf-8", errors="replace").lower()
    return "envi spectral library" in text


def describe_library(path: Path) -> list[tuple[str, str]]:
    """Spectra, wavelengths, names."""
    import numpy as np

    from hsunmix.data import read_library

    library = read_library(path)
    complete = int(np.isfinite(library.spectra).all(axis=1).sum())
    names = ", ".join(library.names[:8]) + (", ..." if len(library) > 8 else "")
    finite = library.spectra[np.isfinite(library.spectra)]
    return [
        ("spectral library", str(path)),
        ("spectra", f"{len(library)} x {library.num_bands} bands, {complete} without missing values"),
        ("wavelengths", _range(library.wavelengths)),
        ("values", f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "none"),
        ("names", names),
    ]


def _range(wavelengths: Any) -> str:
    import numpy as np

    if wavelengths is None:
        return "not known"
    sorted_text = "" if (np.diff(wavelengths) > 0).all() else ", not in increasing order"
    return f"{wavelengths.min():.0f} to {wavelengths.max():.0f} nm{sorted_text}"
