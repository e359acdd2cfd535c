"""`hsunmix unmix`: a cube in, abundance maps, spectra and pictures out."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import choose_device, distinct, first, load_pipeline, output_folder, spectra_at_bands, versions
from .results import FILES, report, summarize, write_results

if TYPE_CHECKING:
    from hsunmix.data import Cube, SpectralLibrary

DESCRIPTION = """\
Estimate which materials (endmembers) a hyperspectral image holds, and the fraction of each in every pixel.

Nothing but the image is needed. What you know makes the result better: the number of materials (-r), their
spectra (--endmembers where they are roughly right, --fixed-endmembers where they are exact), or a spectral
library that holds them among others (--library).
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

files written to DIR:
  abundances.hdr, .img    fraction of each material, one band per material (float32, NaN = nodata)
  endmembers.hdr, .sli    spectra of the materials, an ENVI spectral library
  results.npz             everything: also uncertainties, coarse estimates, brightness, residual, noise
  summary.json            settings, versions, timings, mean abundances, noise, residual
  abundances.png, endmembers.png, residual.png, composite.png
"""


SETTINGS = (
    "num_endmembers",
    "endmembers",
    "fixed_endmembers",
    "library",
    "scale",
    "brightness",
    "checkpoint",
    "steps",
    "strength",
    "ensemble",
    "uncertainty",
    "seed",
)


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "unmix", help="unmix a hyperspectral image", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.set_defaults(run=run)
    parser.add_argument("cube", metavar="CUBE", type=Path, help="ENVI (.hdr or data file), .npy, .npz or .mat")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are already in DIR")
    known = parser.add_argument_group("what is known about the scene")
    known.add_argument(
        "-r", "--num-endmembers", metavar="N", type=int, help="number of materials (default: estimated)"
    )
    known.add_argument("--endmembers", metavar="FILE", type=Path, help="approximate spectra, refined by the image")
    known.add_argument("--fixed-endmembers", metavar="FILE", type=Path, help="exact spectra, kept as they are")
    known.add_argument("--library", metavar="FILE", type=Path, help="spectral library to choose the materials from")
    known.add_argument(
        "--scale", metavar="X", type=float, help="divide the numbers by X to get reflectance (default: from the file)"
    )
    known.add_argument(
        "--brightness",
        choices=("auto", "free", "fixed"),
        default="auto",
        help="illumination: free where shade and slope vary, fixed where fractions must explain the brightness "
        "(default: auto, judged from the image)",
    )
    method = parser.add_argument_group("method")
    method.add_argument(
        "--checkpoint",
        metavar="DIR_OR_REPO",
        default="base",
        help="bundled checkpoint, folder or Hub repository (default: base)",
    )
    method.add_argument("--steps", metavar="N", type=int, help="denoising steps; 0 = coarse estimate only")
    method.add_argument("--strength", metavar="X", type=float, help="0 to 1: how far to go from the coarse estimate")
    method.add_argument("--ensemble", metavar="N", type=int, default=1, help="runs to average (default: 1)")
    method.add_argument("--uncertainty", action="store_true", help="estimate standard deviations")
    method.add_argument("--seed", metavar="N", type=int, default=0, help="same seed, same result (default: 0)")
    method.add_argument(
        "--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:1, mps (default: the fastest)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Read, unmix, write."""
    import torch

    from hsunmix.data import read_cube, write_json

    clock = Clock()
    folder = output_folder(args.output, FILES, args.overwrite)
    cube = read_cube(args.cube, scale=args.scale)
    known = read_known_spectra(args, cube)
    clock.lap("read")
    device = choose_device(args.device)
    pipe = load_pipeline(args.checkpoint, device, args.quiet)
    clock.lap("load")
    output = pipe(
        cube,
        num_endmembers=args.num_endmembers,
        **{key: library.spectra for key, library in known.items()},
        num_inference_steps=args.steps,
        strength=args.strength,
        brightness=args.brightness,
        ensemble_size=args.ensemble,
        output_uncertainty=args.uncertainty,
        generator=torch.Generator("cpu").manual_seed(args.seed),
    )
    clock.lap("unmix")
    result = first(output)
    names = name_endmembers(result, known)
    write_results(folder, cube, result, names)
    clock.lap("write")
    summary = summarize(cube, result, names)
    settings = {key: getattr(args, key) for key in SETTINGS} | {"device": device}
    about = {"settings": settings, "seconds": clock.laps, "versions": versions()}
    write_json(folder / "summary.json", summary | about)
    if not args.quiet:
        report(folder, summary, clock.laps["unmix"])
    return 0


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Store the seconds since the last lap."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now


def read_known_spectra(args: argparse.Namespace, cube: Cube) -> dict[str, SpectralLibrary]:
    """Spectra given on the command line at the cube's bands, by argument of the pipeline."""
    from hsunmix.data import read_library

    known = {}
    for argument in ("endmembers", "fixed_endmembers", "library"):
        path = getattr(args, argument)
        if path is None:
            continue
        option = f"--{argument.replace('_', '-')} {path}"
        known[argument] = spectra_at_bands(read_library(path), cube, option, drop_incomplete=argument == "library")
    return known


def name_endmembers(result: dict[str, Any], known: dict[str, SpectralLibrary]) -> list[str]:
    """Names of the given spectra, or of the library's spectra that were chosen; else "endmember 1", ..."""
    count = len(result["endmembers"])
    names = [f"endmember {index + 1}" for index in range(count)]
    if "library" in known:
        names = nearest_names(result["coarse_endmembers"], known["library"])
    given = [name for key in ("fixed_endmembers", "endmembers") if key in known for name in known[key].names]
    names[: len(given)] = given[:count]
    return distinct(names)


def nearest_names(spectra: Any, library: SpectralLibrary) -> list[str]:
    """Names of the library's spectra at the least angle; masked bands of `spectra` (R, B) are NaN."""
    import numpy as np

    from hsunmix.evaluation import spectral_angles

    used = np.isfinite(spectra).all(axis=0)
    nearest = spectral_angles(np.asarray(spectra)[:, used], library.spectra[:, used]).argmin(axis=1)
    return [library.names[index] for index in nearest]
