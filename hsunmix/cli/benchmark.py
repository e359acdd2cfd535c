"""`hsunmix benchmark`: coarse against refined against exactly solved least squares, on scenes with references."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .common import choose_device, load_pipeline, measurement, output_folder, say
from .progress import progress

DESCRIPTION = """\
Unmix scenes whose reference is known, at several noise levels, and tabulate the abundance RMSE and spectral angle of
the coarse and the refined estimate beside exactly solved non-negative least squares from the same endmembers.
"""

EXAMPLES = """\
examples:
  hsunmix benchmark samson.hdr jasper_ridge.hdr -o bench
      needs samson_reference.npz (endmembers, abundances) and jasper_ridge_reference.npz beside the cubes
  hsunmix benchmark --library usgs.hdr --simulated 3 --track blind library --snr 30 15 -o bench
      three simulated scenes without pure pixels, from the spectra of a library

tracks: given (exact endmembers), perturbed (turned by exactly 5 degrees), blind (only their number), library (their
        number, and the spectra of --library)
files written to DIR: benchmark.json (every run), benchmark.md (medians over the seeds)
"""

FILES = ("benchmark.json", "benchmark.md")
TRACK_NAMES = ("given", "perturbed", "blind", "library")


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "benchmark", help="score the pipeline on known scenes", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.set_defaults(run=run)
    parser.add_argument("scenes", metavar="CUBE", type=Path, nargs="*", help="cubes with a reference beside them")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the files")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already in DIR")
    parser.add_argument(
        "--library", metavar="FILE", type=Path, help="of the simulated scenes, and of the library track"
    )
    parser.add_argument("--simulated", metavar="N", type=int, default=0, help="number of simulated scenes")
    parser.add_argument(
        "--mixing", nargs="+", choices=("linear", "bilinear", "variable"), default=["linear"], help="default: linear"
    )
    parser.add_argument("--first-seed", metavar="N", type=int, default=0, help="of the simulated scenes (default: 0)")
    parser.add_argument("--track", nargs="+", choices=TRACK_NAMES, help="default: given perturbed blind")
    parser.add_argument(
        "--snr", metavar="DB", nargs="+", default=["inf", "30", "20", "10"], help="inf = clean (default: inf 30 20 10)"
    )
    parser.add_argument("--seeds", metavar="N", type=int, default=5, help="runs of the blind track (default: 5)")
    parser.add_argument("--steps", metavar="N", type=int, help="denoising steps")
    parser.add_argument("--checkpoint", metavar="DIR_OR_REPO", default="base", help="default: base")
    parser.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda, mps (default: the fastest)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, write both files, print the table."""
    from hsunmix.data import read_library, write_json
    from hsunmix.evaluation import benchmark

    if args.simulated and args.library is None:
        raise ValueError("--simulated needs --library, the spectra of the scenes")
    if not args.scenes and not args.simulated:
        raise ValueError("nothing to do: give cubes, or --library and --simulated")
    if "library" in (args.track or ()) and args.library is None:
        raise ValueError("--track library needs --library, the spectra to choose from")
    levels = [None if value == "inf" else float(value) for value in args.snr]
    tracks = args.track or list(benchmark.TRACKS)
    folder = output_folder(args.output, FILES, args.overwrite)
    scenes = [benchmark.load_reference_scene(path) for path in args.scenes]
    if scenes and "library" in tracks:
        scenes = [replace(scene, library=read_library(args.library)) for scene in scenes]
    for mixing in args.mixing if args.simulated else ():
        seeds = range(args.first_seed, args.first_seed + args.simulated)
        scenes += [benchmark.simulated_reference_scene(args.library, seed, mixing) for seed in seeds]
    pipe = load_pipeline(args.checkpoint, choose_device(args.device), args.quiet)
    pipe.set_progress_bar_config(disable=True)
    total = len(scenes) * len(levels) * sum(args.seeds if track == "blind" else 1 for track in tracks)
    with progress(total, "run", args.quiet) as bar:
        scores = benchmark.run(
            pipe,
            scenes,
            tracks,
            levels,
            range(args.seeds),
            report=lambda score: bar.update() and None,
            num_inference_steps=args.steps,
        )
    table = benchmark.as_markdown(scores)
    write_json(folder / "benchmark.json", measurement(pipe, args, benchmark.as_records(scores)))
    (folder / "benchmark.md").write_text(table + "\n")
    say(table)
    return 0
