"""`hsunmix unmix`: a cube in, abundance maps, spectra and pictures out."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import choose_device, first, load_pipeline, output_folder, say, versions
from .known import name_endmembers, read_known_spectra
from .options import SETTINGS, add_unmixing_options, load_networks, open_scene
from .processes import Ranks, group_rank, join_group, run_processes, starts_group
from .results import FILES, SPECTRA, extent, publish, read_summary, report, scene_maps, summarize, write_results
from .tiled import WORK_FOLDER, plan_scene, run_tiled, work_folder

if TYPE_CHECKING:
    from hsunmix.data import Cube, SpectralLibrary

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Estimate which materials (endmembers) a hyperspectral image holds, and the fraction of each in every pixel.

Nothing but the image is needed. What you know makes the result better: the number of materials (-r), their
spectra (--endmembers where they are roughly right, --fixed-endmembers where they are exact), or a spectral
library that holds them, or similar ones, among others (--library).
"""

EXAMPLES = """\
examples:
  hsunmix unmix samson.hdr -r 3 -o out
      three unknown materials; ENVI, .npy, .npz and .mat are read alike
  hsunmix unmix scene.npy --scale 10000 -r 5 --ensemble 8 --uncertainty -o out
      integers 0 to 10000; eight runs, whose spread is the uncertainty
  hsunmix unmix scene.hdr --library usgs.hdr -r 5 -o out
      five spectra chosen from a library, resampled to the bands of the image
  hsunmix unmix scene.hdr --endmembers field.csv -o out
      start from field spectra and let the image correct them
  hsunmix unmix EMIT_L2A_RFL_001.nc -r 6 --format cog --ortho --report -o out
      a whole granule, in tiles that fit in --memory; GeoTIFF on a map, and a page to read
  hsunmix unmix EMIT_L2A_RFL_001.nc -r 6 --format cog --ortho --report -o out --resume
      the same, after the machine went down half way

spectra (--endmembers, --fixed-endmembers, --library) are read from ENVI libraries (.hdr, .sli),
  .csv (wavelength in the first column, then one column per spectrum; names in the first row),
  .npz (endmembers or spectra, names, wavelengths) or .npy (one spectrum in each row, at the bands of the image)

files written to DIR:
  abundances.hdr, .img    fraction of each material, one band per material (float32, NaN = nodata);
                          .tif with --format geotiff or cog, and so are:
  uncertainty             their standard deviations, with --uncertainty or --ensemble
  brightness, residual    illumination of each pixel; what the model doesn't explain (reflectance)
  quality                 0 good, 1 nodata, 2 saturated, 3 poorly explained
  endmembers.hdr, .sli    spectra of the materials, an ENVI spectral library
  results.npz             everything as arrays (of a scene in tiles: spectra and noise only)
  summary.json            settings, versions, timings, mean abundances, noise, residual
  abundances.png, endmembers.png, residual.png, brightness.png (where it varies), composite.png, report.html
  timing.json             seconds and memory of a scene in tiles; all other files are the same however it was run
"""


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "unmix", help="unmix a hyperspectral image", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "cube", metavar="CUBE", type=Path, help="ENVI, EMIT (.nc), EnMAP, PRISMA (.he5), GeoTIFF, .npy, .npz or .mat"
    )
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the results")
    add_unmixing_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Read, unmix, write; in several processes where asked."""
    if starts_group(args.num_processes):
        return run_processes(args.argv, args.num_processes)
    return unmix_scene(args)


def unmix_scene(args: argparse.Namespace, pipe: Any = None, alone: bool = False) -> int:
    """One scene.

    Args:
        args: of the command line.
        pipe: the pipeline, where it has been loaded.
        alone: no other process works on this scene, even where there are others.

    Returns:
        Exit code.
    """
    clock = Clock()
    if is_complete(args):
        if not args.quiet:
            say(f"{args.output}: complete already")
        return 0
    folder = output_folder(args.output, FILES, args.overwrite or args.resume)
    refuse_unfinished(args)
    cube = open_scene(args)
    check_format(args, cube)
    known = read_known_spectra(args, cube)
    from hsunmix.pipelines.starts import MANY  # heavy; what is refused is refused before

    count = args.num_endmembers or 0
    if MANY < count <= cube.band_mask.sum() and (alone or group_rank()[0] == 0):  # with more it is refused
        logger.warning("%d endmembers are more than scenes usually hold; this takes long", count)
    clock.lap("read")
    device = choose_device(args.device)
    processes = 1 if alone else group_rank()[1]
    plan = plan_scene(args, cube, known, processes)
    if plan is None:
        return unmix_at_once(args, folder, cube, known, device, clock, pipe)
    ranks = Ranks(0, 1, lambda: None, device) if alone else join_group(device)
    args.quiet = args.quiet or not ranks.is_main

    def load() -> Any:
        return pipe if pipe is not None else load_networks(args, load_pipeline, ranks.device, quiet=True)

    try:
        return run_tiled(args, cube, known, plan, ranks, load, clock.lap, clock.laps)
    finally:
        store = work_folder(args)
        if ranks.is_main and not store.scene_path.exists():  # stopped before there was anything to continue
            store.discard()


def is_complete(args: argparse.Namespace) -> bool:
    """Whether `--resume` finds the result that is asked for.

    Raises:
        ValueError: it finds that of another scene or of other options.
    """
    if not args.resume or not (args.output / "summary.json").is_file() or work_folder(args).exists():
        return False
    difference = _difference(args, read_summary(args.output))
    if difference and not args.overwrite:
        raise ValueError(
            f"{args.output} holds the result of another run ({difference}): --overwrite replaces it, or give another "
            "folder"
        )
    return not difference


def _difference(args: argparse.Namespace, summary: dict[str, Any]) -> str:
    """The first thing in which a result isn't what is asked for; empty where there is none."""
    for key in (key for key in SETTINGS if key in summary["settings"]):
        earlier, now = summary["settings"][key], getattr(args, key)
        now = str(now) if isinstance(now, Path) else now
        if earlier != now:
            option = args.option_names[key]
            return f"{_given(option, earlier)}, now {_given(option, now)}"
    earlier, now = Path(summary["cube"]["path"]).name, Path(open_scene(args).path or args.cube).name
    return f"of {earlier}, now {now}" if earlier != now else ""


def _given(option: str, value: Any) -> str:
    if value is None or value is False:
        return f"without {option}"
    return f"with {option}" if value is True else f"with {option} {value}"


def unmix_at_once(
    args: argparse.Namespace,
    folder: Path,
    cube: Cube,
    known: dict[str, SpectralLibrary],
    device: str,
    clock: Clock,
    pipe: Any = None,
) -> int:
    """A scene that fits in memory."""
    import numpy as np
    import torch

    from hsunmix.data import write_json
    from hsunmix.data.readers import naming

    with naming(args.cube):
        _ = cube.data
    clock.lap("read")
    pipe = load_networks(args, load_pipeline, device, args.quiet) if pipe is None else pipe
    clock.lap("load")
    if not args.quiet:
        say(f"{args.cube}: {extent(cube.shape, int((~cube.band_mask).sum()))}")
    output = pipe(
        cube,
        num_endmembers=args.num_endmembers,
        **{key: library.spectra for key, library in known.items()},
        num_inference_steps=args.steps,
        strength=args.strength,
        brightness=args.brightness,
        mixing_model=args.mixing_model,
        correct_endmembers=not args.no_correction,
        facets=args.facets,
        ensemble_size=args.ensemble,
        output_uncertainty=args.uncertainty,
        reflectance_scale=args.scale,
        generator=torch.Generator("cpu").manual_seed(args.seed),
    )
    clock.lap("unmix")
    cube = cube.replaced(scale=cube.scale * output.scene[0].scale)  # which the pipeline may have guessed
    result = first(output)
    maps = scene_maps(cube, result)
    spectra = {key: result.pop(key) for key in SPECTRA}
    names = name_endmembers(spectra, known)
    for left_over in folder.glob(f"{WORK_FOLDER}-*"):  # of a run that was killed while it wrote
        shutil.rmtree(left_over, ignore_errors=True)
    staging = folder / f"{WORK_FOLDER}-{os.getpid()}"
    try:
        arrays = result | {"nodata_mask": np.isnan(maps.residual)}
        write_results(staging, cube, maps, spectra, names, args.format, args.ortho, arrays)
        summary = summarize(cube, maps, spectra, names, output.scene[0])
        clock.lap("write")
        settings = {key: getattr(args, key) for key in SETTINGS} | {"device": device}
        about = {"settings": settings, "seconds": clock.laps, "versions": versions()}
        write_json(staging / "summary.json", summary | about)
        if args.report:
            from hsunmix.visualization import write_report

            write_report(staging, summary, settings, versions(), args.argv)
        publish(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not args.quiet:
        report(folder, summary | about, clock.laps["unmix"])
    return 0


def refuse_unfinished(args: argparse.Namespace) -> None:
    """Don't throw finished tiles away unasked.

    Raises:
        ValueError: there are some, and the user has not said what to do with them.
    """
    if work_folder(args).exists() and not (args.resume or args.overwrite):
        raise ValueError(f"{args.output} holds an interrupted run: --resume continues it, --overwrite starts again")


def check_format(args: argparse.Namespace, cube: Cube) -> None:
    """Refuse what can't be written, before any work is done.

    Raises:
        ImportError: GeoTIFF without rasterio.
        ValueError: `--ortho` for a cube without lookup table.
    """
    from hsunmix.data.optional import require

    if args.format != "envi":
        require("rasterio", "geo", f"--format {args.format}")
    if args.ortho and cube.ortho is None:
        raise ValueError(f"--ortho: {args.cube} has no lookup table onto a map; only EMIT files bring one")


class Clock:
    """Seconds between laps; laps of the same name add up."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Store the seconds since the last lap."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._last, 3)
        self._last = now
