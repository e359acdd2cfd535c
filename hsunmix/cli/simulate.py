"""`hsunmix simulate`: a scene with its full truth, as files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import output_folder, say, versions
from .demo import scene_arrays

DESCRIPTION = """\
Simulate a hyperspectral scene whose endmembers, abundances, brightness and noise are known, to test a method with.
What you don't fix is drawn at random from the seed.
"""

EXAMPLES = """\
examples:
  hsunmix simulate -r 5 --snr 30 -o sim
      made-up spectra (minerals, soils, leaves, water, man-made), linear mixing
  hsunmix simulate -r 6 --library usgs.hdr --sensor emit --mixing bilinear --max-purity 0.8 -o sim
      library spectra at the bands of EMIT, no pure pixel
  hsunmix simulate -o sim && hsunmix unmix sim/scene.hdr -r 4 -o out

files written to DIR:
  scene.hdr, .img           the cube (float32 reflectance)
  scene_reference.npz       endmembers (R, B), abundances (H, W, R), brightness, noise, clean cube, names, wavelengths
  endmembers.hdr, .sli      the endmembers as an ENVI spectral library
  summary.json              settings
  abundances.png, endmembers.png, composite.png
"""

FILES = ("scene.hdr", "scene_reference.npz", "endmembers.hdr", "summary.json")
SENSORS = ("random", "emit", "aviris", "enmap", "prisma", "vnir")
MIXING = ("linear", "bilinear", "postnonlinear", "variable")


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "simulate", help="write a simulated scene with its truth", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.set_defaults(run=run)
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the files")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already in DIR")
    parser.add_argument("-r", "--num-endmembers", metavar="N", type=int, default=4, help="materials (default: 4)")
    parser.add_argument(
        "--size", metavar=("ROWS", "COLUMNS"), type=int, nargs=2, default=(64, 64), help="default: 64 64"
    )
    parser.add_argument("--snr", metavar="DB", type=float, default=30.0, help="inf = no noise (default: 30)")
    parser.add_argument("--sensor", choices=SENSORS, default="enmap", help="bands (default: enmap)")
    parser.add_argument("--mixing", choices=MIXING, default="linear", help="default: linear")
    parser.add_argument(
        "--brightness", choices=("fixed", "free"), default="fixed", help="varying illumination? (default: fixed)"
    )
    parser.add_argument("--max-purity", metavar="X", type=float, help="largest abundance of any pixel (default: 1)")
    parser.add_argument("--library", metavar="FILE", type=Path, help="take the spectra from here")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="default: 0")
    return parser


def run(args: argparse.Namespace) -> int:
    """Simulate and write."""
    import numpy as np

    from hsunmix.data import write_cube, write_json, write_library, write_npz
    from hsunmix.visualization import save_figures

    folder = output_folder(args.output, FILES, args.overwrite)
    scene = _simulate(args)
    arrays = scene_arrays(scene)
    observed = arrays.pop("observed")
    clean = arrays.pop("cube")
    names = arrays["names"]
    wavelengths, fwhm = arrays["wavelengths"].astype(np.float64), arrays["fwhm"].astype(np.float64)
    write_cube(folder / "scene", observed, wavelengths, fwhm)
    write_library(folder / "endmembers", arrays["endmembers"], names, wavelengths)
    write_npz(folder / "scene_reference.npz", **arrays, clean=clean)
    keys = ("num_endmembers", "size", "snr", "sensor", "mixing", "brightness", "max_purity", "library", "seed")
    settings = {key: getattr(args, key) for key in keys}
    write_json(folder / "summary.json", {"names": names, "settings": settings, "versions": versions()})
    save_figures(folder, arrays["abundances"], arrays["endmembers"], wavelengths, names, cube=observed)
    if not args.quiet:
        height, width, bands = observed.shape
        say(f"{height} x {width} pixels, {bands} bands, {len(names)} endmembers: {', '.join(names)}")
        say(f"written to {folder}; unmix it: hsunmix unmix {folder / 'scene.hdr'} -r {len(names)} -o out")
    return 0


def _simulate(args: argparse.Namespace) -> Any:
    import math

    import torch

    from hsunmix.simulation import LibrarySpectra, SceneSimulator, preset_sensor, random_sensor

    if min(args.size) < 1:
        raise ValueError(f"--size must be at least 1 1, got {args.size[0]} {args.size[1]}")
    generator = torch.Generator().manual_seed(args.seed)
    libraries = None
    if args.library is not None:
        from hsunmix.data import read_library

        library = read_library(args.library)
        libraries = [LibrarySpectra.from_any(library)]
    simulator = SceneSimulator(libraries, parametric_fraction=0.0, exclude_held_out=False)
    sensor = random_sensor(generator) if args.sensor == "random" else preset_sensor(args.sensor)
    return simulator(
        generator,
        num_endmembers=args.num_endmembers,
        height=args.size[0],
        width=args.size[1],
        snr_db=None if math.isinf(args.snr) else args.snr,
        mixing=args.mixing,
        brightness=args.brightness,
        max_purity=args.max_purity,
        sensor=sensor,
        noise="white",
        dead_pixels=False,
    )
