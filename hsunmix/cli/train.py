"""`hsunmix train`: all stages of a training in one command, from spectral libraries to a pipeline folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Train the three networks, stage after stage, and put them together as a pipeline.

Scenes are simulated on the fly from the spectral libraries (and built-in spectra), so no labelled data are needed.
A run that was stopped goes on where it was when the same command is given again.
"""

EXAMPLES = """\
examples:
  hsunmix train --config cpu --library usgs.hdr -o runs/mine       an evening on a laptop
  hsunmix train --config base --library *.hdr --num-processes 4 -o runs/big    four GPUs
  hsunmix unmix scene.hdr -r 4 --checkpoint runs/mine/pipeline -o out          use the result
"""


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train", help="train the networks from spectral libraries", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.add_argument("--config", default="cpu", help="tiny, cpu, base or a .yaml file (default: cpu)")
    parser.add_argument("--library", nargs="*", default=[], metavar="FILE", help="ENVI spectral libraries")
    parser.add_argument("--maps", nargs="*", default=[], metavar="FILE", help="maps of real scenes, of make_maps.py")
    parser.add_argument("-o", "--output_dir", "--output-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--num-processes", type=int, default=1, metavar="N", help="processes, one per GPU (default: 1)"
    )
    parser.add_argument("--mixed-precision", choices=("no", "bf16", "fp16"), help="instead of the configuration's")
    parser.add_argument("--seed", type=int, default=0, help="of the whole training (default: 0)")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..training import load_recipe, run_recipe

    if args.num_processes < 1:
        raise ValueError(f"`--num-processes` must be 1 or more, but is {args.num_processes}.")
    for path in (*args.library, *args.maps):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist.")
    folder = run_recipe(
        load_recipe(args.config),
        args.library,
        args.maps,
        args.output_dir,
        args.num_processes,
        args.mixed_precision,
        args.seed,
    )
    if not args.quiet:
        print((args.output_dir / "validation.md").read_text())
        print(f"{folder} holds the pipeline: hsunmix unmix SCENE --checkpoint {folder} -o out")
    return 0
