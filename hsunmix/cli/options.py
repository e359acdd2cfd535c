"""Options that `unmix` and `batch` share, and what is made of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsunmix.data import Cube

DEFAULT_MEMORY = "4G"
DEFAULT_OVERLAP = 32
MIXING_MODELS = ("linear", "bilinear", "postnonlinear", "variable")  # as in hsunmix.physics
MIXING_CHOICES = ("auto", *MIXING_MODELS)
MAP_FORMATS = ("envi", "geotiff", "cog")  # as in hsunmix.data, which is too heavy to import for a help text

# What the result depends on; stored with it.
SETTINGS = (
    "num_endmembers",
    "endmembers",
    "fixed_endmembers",
    "no_correction",
    "library",
    "scale",
    "wavelengths",
    "mask_bands",
    "brightness",
    "mixing_model",
    "facets",
    "checkpoint",
    "dtype",
    "steps",
    "strength",
    "ensemble",
    "uncertainty",
    "seed",
)


def add_unmixing_options(parser: argparse.ArgumentParser) -> None:
    """All options of unmixing."""
    add_scene_options(parser)
    add_method_options(parser)
    add_output_options(parser)
    add_tiling_options(parser)


def add_scene_options(parser: argparse.ArgumentParser) -> None:
    """What is known about the scene, and what is to be left out of it."""
    known = parser.add_argument_group("what is known about the scene")
    known.add_argument(
        "-r", "--num-endmembers", metavar="N", type=int, help="number of materials (default: estimated)"
    )
    known.add_argument("--endmembers", metavar="FILE", type=Path, help="approximate spectra, refined by the image")
    known.add_argument("--fixed-endmembers", metavar="FILE", type=Path, help="exact spectra, kept as they are")
    known.add_argument(
        "--no-correction",
        action="store_true",
        help="start from --endmembers as they are: they have been found in this very image, by `hsunmix adapt`, say; "
        "or from spectra of --library, though they may not be those of the image",
    )
    known.add_argument(
        "--library",
        metavar="FILE",
        type=Path,
        help="spectral library to choose the materials from; where its spectra don't explain the image, those "
        "that are like an extracted one count as approximate",
    )
    known.add_argument(
        "--scale", metavar="X", type=float, help="number that stands for reflectance 1 (default: as the file says)"
    )
    known.add_argument(
        "--wavelengths",
        metavar="FILE",
        type=Path,
        help="one wavelength per band, in nm or micrometres (text or .npy), where the image doesn't say them",
    )
    known.add_argument(
        "--mask-bands",
        metavar="BANDS",
        default="water",
        help="bands to leave out: water (those that the file calls bad, and 1310-1490, 1770-2050, above 2440 nm; the "
        "default), file (only those that the file calls bad), none, or intervals of nm like 1310-1490,2400-",
    )
    known.add_argument(
        "--brightness",
        choices=("auto", "free", "fixed"),
        default="auto",
        help="illumination: free where shade and slope vary, fixed where fractions must explain the brightness "
        "(default: auto, judged from the image)",
    )


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """The sampler and the machine."""
    method = parser.add_argument_group("method")
    method.add_argument(
        "--checkpoint",
        metavar="DIR_OR_REPO",
        default="base",
        help="bundled checkpoint, folder or Hub repository, user/name or user/name@revision (default: base)",
    )
    method.add_argument(
        "--mixing-model",
        choices=MIXING_CHOICES,
        default="auto",
        help="bilinear and postnonlinear where light goes over several materials, as between trees or houses; pays "
        "where spectra are known or noise is low; variable where the spectra of materials change over the scene "
        "(default: auto, variable or bilinear where that explains all that a linear mixture doesn't, else linear; "
        "with --brightness linear)",
    )
    method.add_argument(
        "--no-facets",
        action="store_false",
        dest="facets",
        help="don't move endmembers to where pixels without a material pile up",
    )
    method.add_argument("--steps", metavar="N", type=int, help="denoising steps; 0 = coarse estimate only")
    method.add_argument("--strength", metavar="X", type=float, help="0 to 1: how far to go from the coarse estimate")
    method.add_argument(
        "--ensemble",
        metavar="N",
        type=int,
        default=1,
        help="runs to average, each with an extraction of its own (default: 1)",
    )
    method.add_argument("--uncertainty", action="store_true", help="estimate standard deviations")
    method.add_argument("--seed", metavar="N", type=int, default=0, help="same seed, same result (default: 0)")
    method.add_argument(
        "--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:1, mps (default: the fastest)"
    )
    method.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the networks; bfloat16 is faster on a GPU, and less exact (default: float32)",
    )
    method.add_argument(
        "--compile", action="store_true", help="compile the networks first: pays on a GPU with many tiles"
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """What is written, and how."""
    files = parser.add_argument_group("results")
    files.add_argument(
        "--format",
        choices=MAP_FORMATS,
        default="envi",
        help="of the maps: envi, geotiff (tiled, compressed) or cog (cloud optimised); default: envi",
    )
    files.add_argument(
        "--ortho", action="store_true", help="lay the maps of an EMIT scene out on its map, not the sensor's grid"
    )
    files.add_argument("--report", action="store_true", help="also write report.html, one page with everything")
    files.add_argument("--overwrite", action="store_true", help="replace results that are already there")


def add_tiling_options(parser: argparse.ArgumentParser) -> None:
    """Large scenes and interrupted runs."""
    large = parser.add_argument_group("large scenes")
    large.add_argument(
        "--memory",
        metavar="SIZE",
        default=DEFAULT_MEMORY,
        help=f"of all processes together; scenes that need more are unmixed in tiles (default: {DEFAULT_MEMORY})",
    )
    large.add_argument("--tile", metavar="N", type=int, help="rows and columns of a tile (default: by --memory)")
    large.add_argument(
        "--overlap",
        metavar="N",
        type=int,
        help=f"pixels that neighbouring tiles share (default: {DEFAULT_OVERLAP}, at most half a tile)",
    )
    large.add_argument("--resume", action="store_true", help="continue a run that was interrupted")
    large.add_argument(
        "--num-processes", metavar="N", type=int, default=1, help="processes that share the work (default: 1)"
    )


def scene_defaults() -> dict[str, Any]:
    """What is known about a scene unless the options of `add_scene_options` say more, by name."""
    parser = argparse.ArgumentParser()
    add_scene_options(parser)
    return vars(parser.parse_args([]))


def options_given(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """The words of a command line that say what is not as usual.

    Args:
        settings: values by name, like `num_endmembers`.
        usual: those that need no option.
    """
    words = []
    for key, value in settings.items():
        if value != usual[key]:
            number = isinstance(value, float) and value == int(value)
            words += [
                f"--{key.replace('_', '-')}",
                *([] if value is True else [str(int(value) if number else value)]),
            ]
    return words


def load_networks(args: argparse.Namespace, load: Callable[..., Any], device: str, quiet: bool) -> Any:
    """The pipeline in the number format asked for, compiled where asked.

    Args:
        args: of the command line.
        load: `load_pipeline`.
        device: what it computes on.
        quiet: no progress bar over the steps.
    """
    pipe = load(args.checkpoint, device, quiet)
    if args.dtype != "float32":
        import torch

        pipe.to(getattr(torch, args.dtype))
    if args.compile:
        for network in (pipe.encoder, pipe.unet):
            network.compile(dynamic=False)
    return pipe


def open_scene(args: argparse.Namespace) -> Cube:
    """The cube of the command line, its pixels still in the file, with bands left out as asked.

    Raises:
        ValueError, OSError, ImportError: of `open_cube`; it is a folder.
    """
    from hsunmix.data import open_cube, parse_intervals
    from hsunmix.data.geotiff import enmap_files

    if args.cube.is_dir() and enmap_files(args.cube) is None:
        raise ValueError(
            f"{args.cube} is a folder: name one file in it, or unmix all its scenes with `hsunmix batch {args.cube}`"
        )
    bands: Any = args.mask_bands
    if bands not in ("water", "file", "none"):
        try:
            bands = parse_intervals(bands)
        except ValueError as error:
            raise ValueError(f"--mask-bands: {error}") from error
    wavelengths = None if args.wavelengths is None else read_numbers(args.wavelengths)
    return open_cube(args.cube, wavelengths=wavelengths, scale=args.scale, bands=bands)


def read_numbers(path: Path) -> Any:
    """The numbers of a text file (any separators, `#` begins a comment) or a `.npy` file.

    Raises:
        ValueError: it holds something else.
    """
    import numpy as np

    try:
        if path.suffix.lower() == ".npy":
            return np.ravel(np.load(path, allow_pickle=False)).astype(float)
        lines = [line.split("#", 1)[0] for line in path.read_text(encoding="utf-8").splitlines()]
        return np.array([float(item) for line in lines for item in line.replace(",", " ").replace(";", " ").split()])
    except (ValueError, EOFError) as error:
        raise ValueError(f"--wavelengths {path}: not a list of numbers ({error})") from error
