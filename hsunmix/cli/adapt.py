"""`hsunmix adapt`: fit a pretrained pipeline to one unlabelled scene."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from .common import choose_device, load_pipeline, output_folder, say, versions
from .known import read_known_spectra
from .options import add_scene_options, open_scene

DESCRIPTION = """\
Fit the pretrained networks to one scene, without labels, and save them as a pipeline of their own.

The scene is unmixed; from what was found scenes of the same kind are mixed, and the network of the abundance maps
learns to unmix these, and to predict half of the bands of the scene from the other half. Worth its few minutes
where a scene is noisy, or unlike others; give the same options to `unmix` afterwards.
"""

EXAMPLES = """\
examples:
  hsunmix adapt scene.hdr -r 4 -o adapted
  hsunmix unmix scene.hdr -r 4 --checkpoint adapted -o out
"""

SCENE_OPTIONS = {
    "num_endmembers": None,
    "endmembers": None,
    "fixed_endmembers": None,
    "library": None,
    "scale": None,
    "wavelengths": None,
    "mask_bands": "water",
    "brightness": "auto",
}
"""What is known of a scene, by the defaults of `add_scene_options`."""


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "adapt", help="fit the networks to one unlabelled scene", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.set_defaults(run=run)
    parser.add_argument("cube", metavar="CUBE", type=Path, help="any image that `hsunmix unmix` reads")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the pipeline")
    add_scene_options(parser)
    training = parser.add_argument_group("training")
    training.add_argument(
        "--checkpoint",
        metavar="DIR_OR_REPO",
        default="base",
        help="what to start from: bundled checkpoint, folder or Hub repository (default: base)",
    )
    training.add_argument("--train-steps", metavar="N", type=int, default=300, help="(default: 300)")
    training.add_argument("--learning-rate", metavar="X", type=float, default=3e-4, help="(default: 0.0003)")
    training.add_argument("--seed", metavar="N", type=int, default=0, help="same seed, same result (default: 0)")
    training.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda, mps (default: the fastest)")
    training.add_argument("--resume", action="store_true", help="continue a run that was interrupted")
    training.add_argument("--overwrite", action="store_true", help="replace a pipeline that is already there")
    return parser


def _again(args: argparse.Namespace, folder: Path) -> str:
    """How to unmix with the result: what was said of the scene holds for that too."""
    words = ["hsunmix", "unmix", str(args.cube), "--checkpoint", str(folder), "-o", "out"]
    for name, usual in SCENE_OPTIONS.items():
        value = getattr(args, name)
        if value != usual:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def run(args: argparse.Namespace) -> int:
    """Unmix, train, save."""
    from hsunmix.data import write_json

    if args.train_steps < 1:
        raise ValueError(f"--train-steps must be 1 or more, but is {args.train_steps}")
    from hsunmix.training.adaptation import adapt_to_scene

    folder = output_folder(args.output, ("model_index.json",), args.overwrite or args.resume)
    cube = open_scene(args)
    known = read_known_spectra(args, cube)
    pipe = load_pipeline(args.checkpoint, choose_device(args.device), args.quiet)
    errors = adapt_to_scene(
        pipe,
        cube,
        folder,
        args.train_steps,
        args.learning_rate,
        args.seed,
        args.resume,
        args.quiet,
        num_endmembers=args.num_endmembers,
        brightness=args.brightness,
        reflectance_scale=args.scale,
        **{key: library.spectra for key, library in known.items()},
    )
    if errors is not None:
        settings = {name: getattr(args, name) for name in (*SCENE_OPTIONS, "train_steps", "learning_rate", "seed")}
        about = {
            "scene": args.cube.name,
            "checkpoint": Path(args.checkpoint).name,
            "settings": settings,
            "errors": errors,
        }
        write_json(folder / "adaptation.json", about | {"versions": versions()})
        if not args.quiet:
            say(f"abundance RMSE on scenes mixed from this one: {errors['before']:.4f} -> {errors['after']:.4f}")
            say(f"{folder} holds the pipeline: {_again(args, folder)}")
    return 0
