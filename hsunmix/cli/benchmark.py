"""`hsunmix benchmark`: coarse against refined against exactly solved least squares, on scenes with references."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from .common import choose_device, load_pipeline, measurement, output_folder, say
from .options import MIXING_CHOICES
from .progress import progress

DESCRIPTION = """\
Unmix scenes whose reference is known, at several noise levels, and tabulate the abundance RMSE and spectral angle of
the coarse and the refined estimate beside exactly solved non-negative least squares from the same endmembers.
"""

EXAMPLES = """\
examples:
  hsunmix benchmark samson.hdr jasper_ridge.hdr -o bench
      needs samson_reference.npz (endmembers, abundances) and jasper_ridge_reference.npz beside the cubes
  hsunmix benchmark --library usgs.hdr --simulated 3 --track blind library --snr 30 15 --methods vca sunsal -o bench
      three simulated scenes without pure pixels, from the spectra of a library
  hsunmix benchmark --library new.hdr --simulated 2 --num-endmembers 3 5 8 --purity 1 0.8 --track blind -o grid
      twelve scenes, at four noise levels each, from spectra that the networks have not seen

tracks: given (exact endmembers), perturbed (turned by exactly 5 degrees), blind (only their number), library (their
        number, and the spectra of --library)
methods: on the blind track vca, spa (successive projections), archetypes, minimum_volume, each followed by least
         squares with fixed and with free brightness, of which the table has the better; on the library track sunsal,
         sunsal_tv
files written to DIR: benchmark.json (every run), benchmark.md (medians over the seeds; in the end, how often refined
        maps beat coarse ones and other methods), sparsification.png (does the uncertainty rank pixels by their
        error?), runs.jsonl (for --resume); with --methods benchmark.png
"""

PICTURE, SPARSIFICATION, LOG = "benchmark.png", "sparsification.png", "runs.jsonl"
FILES = ("benchmark.json", "benchmark.md", PICTURE, SPARSIFICATION, LOG)
METHODS = ("vca", "spa", "archetypes", "minimum_volume", "sunsal", "sunsal_tv")
TRACK_NAMES = ("given", "perturbed", "blind", "library")


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "benchmark", help="score the pipeline on known scenes", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.set_defaults(run=run)
    parser.add_argument("scenes", metavar="CUBE", type=Path, nargs="*", help="cubes with a reference beside them")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the files")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace files that are already in DIR")
    existing.add_argument("--resume", action="store_true", help="go on with the same benchmark where it was stopped")
    parser.add_argument(
        "--library", metavar="FILE", type=Path, help="of the simulated scenes, and of the library track"
    )
    parser.add_argument("--simulated", metavar="N", type=int, default=0, help="number of simulated scenes")
    parser.add_argument(
        "--mixing", nargs="+", choices=("linear", "bilinear", "variable"), default=["linear"], help="default: linear"
    )
    parser.add_argument("--num-endmembers", metavar="R", type=int, nargs="+", default=[5], help="of them (default: 5)")
    parser.add_argument(
        "--purity", metavar="P", type=float, nargs="+", default=[0.8], help="largest abundance in them (default: 0.8)"
    )
    parser.add_argument("--first-seed", metavar="N", type=int, default=0, help="of the simulated scenes (default: 0)")
    parser.add_argument("--track", nargs="+", choices=TRACK_NAMES, help="default: given perturbed blind")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[], help="other methods to run beside it")
    parser.add_argument(
        "--snr", metavar="DB", nargs="+", default=["inf", "30", "20", "10"], help="inf = clean (default: inf 30 20 10)"
    )
    parser.add_argument("--seeds", metavar="N", type=int, default=5, help="runs of every cell (default: 5)")
    parser.add_argument("--steps", metavar="N", type=int, help="denoising steps")
    parser.add_argument("--ensemble", metavar="N", type=int, default=1, help="chains to average (default: 1)")
    parser.add_argument(
        "--mixing-model",
        choices=MIXING_CHOICES,
        default="auto",
        help="that hsunmix unmixes with (default: auto)",
    )
    parser.add_argument(
        "--no-facets", action="store_false", dest="facets", help="don't move endmembers to the facets of the pixels"
    )
    parser.add_argument("--checkpoint", metavar="DIR_OR_REPO", default="base", help="default: base")
    parser.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda, mps (default: the fastest)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, write its files, print the tables."""
    from hsunmix.data import read_library, write_json
    from hsunmix.evaluation import benchmark, comparison, summary
    from hsunmix.visualization import plot_error_by_noise, plot_sparsification
    from hsunmix.visualization.report import save_figure

    if args.simulated and args.library is None:
        raise ValueError("--simulated needs --library, the spectra of the scenes")
    if not args.scenes and not args.simulated:
        raise ValueError("nothing to do: give cubes, or --library and --simulated")
    if "library" in (args.track or ()) and args.library is None:
        raise ValueError("--track library needs --library, the spectra to choose from")
    if min(args.num_endmembers) < 2:
        raise ValueError(f"--num-endmembers is {min(args.num_endmembers)}, but a mixture needs two")
    if not all(1 / min(args.num_endmembers) < purity <= 1 for purity in args.purity):
        raise ValueError("--purity lies between 1 / R and 1")
    if args.seeds < 1:
        raise ValueError(f"--seeds is {args.seeds}, but at least one run is needed")
    levels = [_noise_level(value) for value in args.snr]
    tracks = args.track or list(benchmark.TRACKS)
    idle = [name for name in args.methods if not comparison.tracks_of(name) & set(tracks)]
    if idle:
        track = next(iter(comparison.tracks_of(idle[0])))
        raise ValueError(f"--methods {idle[0]} runs on the {track} track only: add it to --track")
    if (args.output / LOG).exists() and not (args.overwrite or args.resume):
        raise ValueError(f"{args.output} already holds a benchmark; give another folder, --resume or --overwrite")
    folder = output_folder(args.output, FILES, args.overwrite or args.resume)
    scenes = [benchmark.load_reference_scene(path) for path in args.scenes]
    if scenes and "library" in tracks:
        scenes = [replace(scene, library=read_library(args.library)) for scene in scenes]
    seeds = range(args.first_seed, args.first_seed + args.simulated)
    for mixing, number, purity, seed in product(args.mixing, args.num_endmembers, args.purity, seeds):
        scenes.append(benchmark.simulated_reference_scene(args.library, seed, mixing, number, purity))
    pipe = load_pipeline(args.checkpoint, choose_device(args.device), args.quiet)
    pipe.set_progress_bar_config(disable=True)
    facts = measurement(pipe, args, [])
    grid = (tracks, levels, range(args.seeds))
    sampler = {
        "num_inference_steps": args.steps,
        "mixing_model": args.mixing_model,
        "facets": args.facets,
        "ensemble_size": args.ensemble,
    }
    others = comparison.runs(scenes, args.methods, *grid)
    total = len(scenes) * len(levels) * len(tracks) * args.seeds + len(others)
    with RunLog(folder / LOG, {key: facts[key] for key in ("settings", "weights")}, args.resume) as log:
        known = [benchmark.Score(**one) for one in log.known("hsunmix")]
        known_others = [comparison.MethodScore(**one) for one in log.known("methods")]
        with progress(total, "run", args.quiet) as bar:

            def report(score: Any) -> None:
                log.add("hsunmix" if isinstance(score, benchmark.Score) else "methods", asdict(score))
                bar.update()

            scores = benchmark.run(pipe, scenes, *grid, report=report, known=known, **sampler)
            compared = comparison.compare(scenes, args.methods, *grid, report=report, known=known_others)
    rows = comparison.rows(scores, compared)
    tables = [benchmark.as_markdown(scores)]
    result = measurement(pipe, args, benchmark.as_records(scores))
    if compared:
        tables += [comparison.as_markdown(rows), comparison.cost_table(rows)]
        result["methods"] = comparison.as_records(compared)
        save_figure(plot_error_by_noise(rows), folder / PICTURE)
    tables.append(summary.as_markdown(scores, rows))
    save_figure(plot_sparsification(benchmark.cells(scores)), folder / SPARSIFICATION)
    write_json(folder / "benchmark.json", result)
    (folder / "benchmark.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    if not args.quiet:
        say("\n\n".join(tables))
    return 0


def _noise_level(text: str) -> float | None:
    """Decibels, `None` for "inf"."""
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if math.isnan(level) or level == -math.inf:
        raise ValueError(f"--snr takes numbers in dB, or inf for no noise, but got {text!r}")
    return None if level == math.inf else level


class RunLog:
    """Every run of a benchmark as soon as it is measured, one JSON object in a line, for `--resume`.

    Args:
        path: of the file.
        facts: what results depend on; the first line.
        resume: keep what the file holds.

    Raises:
        ValueError: it was written with other facts.
    """

    def __init__(self, path: Path, facts: dict[str, Any], resume: bool) -> None:
        self._lines: list[str] = []
        first = json.dumps(facts, sort_keys=True)
        if resume and path.exists():
            head, *lines = path.read_text(encoding="utf-8").splitlines()
            if head != first:
                raise ValueError(
                    f"{path} was measured with other options or weights: give another folder, or --overwrite"
                )
            self._lines = [line for line in lines if line.endswith("}}")]  # the last may be half a line
        self._file = open(path, "w", encoding="utf-8")  # closed by `__exit__`
        self._write(first, *self._lines)

    def known(self, kind: str) -> list[dict[str, Any]]:
        """The runs of one kind that the file held."""
        return [record[kind] for record in map(json.loads, self._lines) if kind in record]

    def add(self, kind: str, score: dict[str, Any]) -> None:
        """Write down a run, unless it is there."""
        line = json.dumps({kind: score})
        if line not in self._lines:
            self._write(line)

    def _write(self, *lines: str) -> None:
        self._file.write("".join(f"{line}\n" for line in lines))
        self._file.flush()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *about: object) -> None:
        self._file.close()
