"""`hsunmix info`: what a file, a checkpoint or this installation is."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import bundled_checkpoints, devices, say, versions
from .results import NAMES_OF_A_LIBRARY, extent, how_well_explained, number_of_materials, read_summary
from .tiled import WORK_FOLDER

if TYPE_CHECKING:
    import numpy as np

    from hsunmix.data import Cube

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Say what a file holds: shape, wavelengths, scale, and the bands and pixels of a cube that `hsunmix unmix` would use;
spectra of a library; materials and files of a result; components of a checkpoint. Without a file: versions, bundled
checkpoints and devices.
"""

EXAMPLES = """\
examples:
  hsunmix info
  hsunmix info scene.hdr
  hsunmix info usgs.sli
  hsunmix info out
      what `hsunmix unmix ... -o out` has found
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
        help="cube, spectral library, folder of results or of a checkpoint, or a bundled checkpoint's name",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Describe."""
    args.option_names["reflectance_scale"] = "--scale"  # of `hsunmix unmix`, which the warnings are about
    if args.file is None:
        return _lines(describe_installation())
    path = Path(args.file)
    if not path.exists() and args.file in bundled_checkpoints():
        path = Path(__file__).resolve().parent.parent / "checkpoints" / args.file
    if path.is_dir() and not list(path.glob("ENMAP*-METADATA.XML")):
        return _lines(describe_folder(path))
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


def describe_folder(folder: Path) -> list[tuple[str, str]]:
    """A result or a checkpoint.

    Raises:
        ValueError: neither of them.
    """
    if (folder / "summary.json").is_file():
        return describe_result(folder)
    if (folder / WORK_FOLDER).is_dir():
        raise ValueError(f"{folder} holds an interrupted run: the command that began it goes on with --resume")
    return describe_checkpoint(folder)


def describe_result(folder: Path) -> list[tuple[str, str]]:
    """Materials, shares, how well they explain the scene, files."""
    summary = read_summary(folder)
    cube = summary["cube"]
    lines = [
        ("result", str(folder)),
        ("cube", f"{cube['path']}: {extent(cube['shape'], cube['bad_bands'])}"),
        ("nodata", f"{cube['nodata_pixels']} of {cube['shape'][0] * cube['shape'][1]} pixels"),
        ("materials", number_of_materials(summary)),
    ]
    for entry in summary["endmembers"]:
        share = f"mean abundance {100 * entry['mean_abundance']:.1f} %, purest pixel {100 * entry['maximum']:.0f} %"
        lines.append((f"  {entry['name']}", share))
    if summary["settings"].get("library") is not None:
        lines.append(("", NAMES_OF_A_LIBRARY))
    lines += [
        ("mixing model", summary["mixing_model"]),
        ("brightness", summary["brightness_mode"]),
        ("residual", how_well_explained(summary)),
    ]
    if summary["unexplained"]:
        lines.append(("warning", summary["unexplained"]))
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return [*lines, ("files", ", ".join(files))]


def describe_checkpoint(folder: Path) -> list[tuple[str, str]]:
    """Components, their sizes, and the defaults stored with them."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} is a folder without summary.json or model_index.json: no result, no checkpoint")
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
    adapted = folder / "adaptation.json"
    if adapted.is_file():
        about = json.loads(adapted.read_text(encoding="utf-8"))
        said = {key: value for key, value in about["settings"].items() if value is not None}
        settings = ", ".join(f"{key} {value}" for key, value in said.items())
        lines.append(("adapted to", f"{about['scene']}, from {about['checkpoint']} ({settings})"))
    return lines


def describe_cube(path: Path) -> list[tuple[str, str]]:
    """Shape, wavelengths, scale, masks, range of values."""
    import numpy as np

    from hsunmix.data import open_cube
    from hsunmix.data.cube import measured
    from hsunmix.pipelines.processor import warn_of_axes
    from hsunmix.tiling import sample_scene

    by_file = open_cube(path, bands="file")
    cube = by_file.without_bands("water")
    height, width, bands = cube.shape
    sample = sample_scene(cube, _SAMPLE)  # a granule is not read as a whole
    good = measured(sample.data[:, :, sample.band_mask], sample.nodata_mask)
    values = sample.data[good][:, sample.band_mask]
    lines = [("cube", str(cube.path or path)), ("shape", f"{height} rows x {width} columns x {bands} bands")]
    if cube.product:
        lines.insert(1, ("product", cube.product))
    lines.append(("wavelengths", _range(cube.wavelengths)))
    if cube.fwhm is not None:
        lines.append(("band width", f"{np.median(cube.fwhm):.1f} nm (median)"))
    if cube.wavelengths is None:  # whose number would tell
        warn_of_axes(sample.data, cube.shape)
    guess = _guess_scale(values)
    known = "" if guess == 1 else " (judged by the values; --scale of `hsunmix unmix` sets it)"
    lines.append(("scale", f"numbers divided by {cube.scale * guess:g}{known}"))
    values = values / guess
    lines.append(("bands used", f"{sample.band_mask.sum()} of {bands}{_left_out(by_file, cube, sample)}"))
    if height * width <= _SAMPLE:
        lines.append(("nodata", f"{(~good).sum()} of {height * width} pixels"))
    if values.size:
        where = "" if height * width <= _SAMPLE else " (of a sample)"
        lines.append(("values", f"{values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}{where}"))
    if "map info" in cube.metadata:
        lines.append(("map info", ", ".join(map(str, cube.metadata["map info"]))))
    if cube.georeference is not None and cube.georeference.crs:
        lines.append(("coordinates", cube.georeference.crs))
    if cube.ortho is not None:
        rows, columns = cube.ortho.shape
        lines.append(("map", f"{rows} rows x {columns} columns by its lookup table (--ortho)"))
    return lines


def _guess_scale(values: np.ndarray) -> float:
    """What `hsunmix unmix` would divide the values by; 1, with a warning, where it would refuse them."""
    from hsunmix.pipelines.processor import HyperspectralProcessor

    if not values.size:
        return 1.0
    try:
        return HyperspectralProcessor.scale_of(values, None)  # which says what it does
    except ValueError as error:
        logger.warning("`hsunmix unmix` would refuse this: %s", error)
        return 1.0


def _left_out(by_file: Cube, cube: Cube, sample: Cube) -> str:
    """Which bands `hsunmix unmix` leaves out unless told otherwise, and why."""
    from hsunmix.data.bands import describe_bands

    reasons = {
        "bad by the file": ~by_file.band_mask,
        "water vapour": by_file.band_mask & ~cube.band_mask,
        "empty": cube.band_mask & ~sample.band_mask,
    }
    parts = [f"{reason} {describe_bands(mask, cube.wavelengths)}" for reason, mask in reasons.items() if mask.any()]
    return f"; --mask-bands leaves out: {'; '.join(parts)}" if parts else ""


def _is_library(path: Path) -> bool:
    if path.suffix.lower() == ".csv":
        return True
    if path.suffix.lower() == ".npy" and path.is_file():
        from hsunmix.data.readers import load_npy

        return load_npy(path)["cube"].ndim == 2
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
