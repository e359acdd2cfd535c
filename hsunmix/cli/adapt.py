"""`hsunmix adapt`: fit a pretrained pipeline to one unlabelled scene."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from .common import choose_device, load_pipeline, output_folder, say, versions
from .known import read_known_spectra
from .options import add_scene_options, open_scene, options_given, scene_defaults

DESCRIPTION = """\
Fit the pretrained networks to one scene, without labels, and save them as a pipeline of their own.

The scene is unmixed; from what was found scenes of the same kind are mixed, and the network of the abundance maps
learns to unmix these, and to predict half of the bands of the scene from the other half. Where no spectra are given,
the median of several extractions is saved as well. Where there is hardly any noise maps don't hang on the network,
and it stays as it is. Give the same options to `unmix` afterwards.
"""

EXAMPLES = """\
examples:
  hsunmix adapt scene.hdr -r 4 -o adapted
  hsunmix unmix scene.hdr --checkpoint adapted --endmembers adapted/endmembers.hdr --no-correction -o out
"""


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


def run(args: argparse.Namespace) -> int:
    """Unmix, train, save."""
    from hsunmix.data import write_json
    from hsunmix.training import adapt_to_scene

    if args.train_steps < 1:
        raise ValueError(f"--train-steps must be 1 or more, but is {args.train_steps}")
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
        correct_endmembers=not args.no_correction,
        **{key: library.spectra for key, library in known.items()},
    )
    if errors is not None:
        usual = scene_defaults()
        said = {name: getattr(args, name) for name in usual}
        about = {
            "scene": args.cube.name,
            "checkpoint": Path(args.checkpoint).name,
            "settings": said | {name: getattr(args, name) for name in ("train_steps", "learning_rate", "seed")},
            "errors": errors,
        }
        write_json(folder / "adaptation.json", about | {"versions": versions()})
        if not args.quiet:
            say(f"noise is {100 * errors['noise_share']:.0f} % of the residual")
            trained = f"abundance RMSE on scenes mixed from this one: {errors['before']:.4f} -> {errors['after']:.4f}"
            unchanged = errors["before"] == errors["after"]
            say("hardly any, so that data have the last word: the weights stay as they are" if unchanged else trained)
            again = ["hsunmix", "unmix", str(args.cube), "--checkpoint", str(folder), "-o", "out"]
            if not known:
                again += ["--endmembers", str(folder / "endmembers.hdr")]
                said |= {"num_endmembers": None, "no_correction": True}  # their number is that of the endmembers
            say(f"{folder} holds the pipeline: {shlex.join([*again, *options_given(said, usual)])}")
    return 0
